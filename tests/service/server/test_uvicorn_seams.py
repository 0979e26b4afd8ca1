"""The names of uvicorn that the socket code overrides, calls and reads: most are private, and may change any time.

Where one is gone or looks otherwise, a sentence says which. After a new release: mend the code, then this table, then
the ceiling in pyproject.toml.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import socket
import tomllib
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import uvicorn
import uvicorn._types
from packaging.requirements import Requirement
from packaging.version import Version
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

# The socket code, and by which names it calls what it has of uvicorn. Nothing else in this file knows our modules.
import service.server.closing
import service.server.ending
import service.server.head
import service.server.message
import service.server.places
import service.server.protocol
import service.server.serve
import service.server.server
from tests.checkout import ROOT

OURS = (
    service.server.closing,
    service.server.ending,
    service.server.places,
    service.server.server,
    service.server.protocol,
    service.server.head,
    service.server.message,
    service.server.serve,
)
SUBCLASSES = (
    ("protocol", service.server.ending.EndingProtocol),
    ("protocol", service.server.protocol.Protocol),
    ("server", service.server.server.GracefulServer),
)

CLASSES = {"protocol": HttpToolsProtocol, "cycle": RequestResponseCycle, "flow": FlowControl, "server": uvicorn.Server}
# For each of uvicorn's objects: what is called, with its arguments, and what is read or set, with its type.
NAMES: dict[str, dict[str, str | type]] = {
    "protocol": {
        # Overridden: uvicorn, its parser, or the event loop calls them.
        "__init__": "(self, config, server_state, app_state, _loop=None)",
        "connection_made": "(self, transport)",
        "connection_lost": "(self, exc)",
        "eof_received": "(self)",
        "data_received": "(self, data)",
        "on_message_begin": "(self)",
        "on_header": "(self, name, value)",
        "on_headers_complete": "(self)",
        "on_body": "(self, body)",
        "on_message_complete": "(self)",
        "on_response_complete": "(self)",
        "shutdown": "(self)",
        "_start_asgi_task": "(self, cycle, app)",
        # Called.
        "_unset_keepalive_if_required": "(self)",
        "timeout_keep_alive_handler": "(self)",
        # Read or set.
        "access_log": bool,
        "access_logger": logging.Logger,
        "app": object,
        "cycle": RequestResponseCycle,
        "expect_100_continue": bool,
        "flow": FlowControl,
        "headers": list,
        "logger": logging.Logger,
        "loop": asyncio.AbstractEventLoop,
        "parser": object,
        "pipeline": deque,
        "scope": dict,
        "server_state": ServerState,
        "timeout_keep_alive": int,
        "timeout_keep_alive_task": asyncio.TimerHandle,
        "transport": asyncio.Transport,
        "url": bytes,
    },
    "cycle": {
        "__init__": (
            "(self, scope, transport, flow, logger, access_logger, access_log, default_headers, message_event, "
            "expect_100_continue, keep_alive, on_response)"
        ),
        "keep_alive": bool,
        "message_event": asyncio.Event,
        "more_body": bool,
        "response_complete": bool,
        "response_started": bool,
        "scope": dict,
        "waiting_for_100_continue": bool,
    },
    "flow": {
        "pause_reading": "(self)",
        "resume_reading": "(self)",
    },
    "server": {
        "__init__": "(self, config)",
        "handle_exit": "(self, sig, frame)",
        "serve": "async (self, sockets=None)",
        "shutdown": "async (self, sockets=None)",
        "force_exit": bool,
        "server_state": ServerState,
        "servers": list,
        "should_exit": bool,
        "started": bool,
    },
    "server_state": {
        "connections": set,
        "default_headers": list,
        "tasks": set,
    },
    "types": dict.fromkeys(
        ("ASGI3Application", "ASGIReceiveCallable", "ASGISendCallable", "ASGISendEvent", "HTTPScope", "Scope"), object
    ),
}
CONFIG_WORDS = (
    "access_log",
    "http",
    "lifespan",
    "log_config",
    "log_level",
    "proxy_headers",
    "server_header",
    "timeout_graceful_shutdown",
    "timeout_keep_alive",
    "ws",
)


class OpenTransport(asyncio.Transport):
    def is_closing(self) -> bool:
        return False


@cache
def make_objects() -> dict[str, object]:
    """Each of uvicorn's objects as the socket code meets it: with a connection, a request, and one that is over."""
    return asyncio.run(_make_objects())


async def _make_objects() -> dict[str, object]:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError((scope, receive, send))  # nobody calls it

    config = uvicorn.Config(app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, log_level="error")
    config.proxy_headers = False
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        server.should_exit = True
        await server.serve(sockets=[listener])
    protocol = HttpToolsProtocol(config, server.server_state, {})
    protocol.connection_made(OpenTransport())
    protocol.on_response_complete()
    protocol.parser.feed_data(b"POST /detect HTTP/1.1\r\ncontent-length: 1\r\n\r\n")
    return {
        "protocol": protocol,
        "cycle": protocol.cycle,
        "flow": protocol.flow,
        "server": server,
        "server_state": server.server_state,
        "types": uvicorn._types,
    }


def find_fault(owner: object, name: str, expected: str | type) -> str | None:
    """Say in a sentence what is wrong with one name; None if it is there and looks as the socket code needs it.

    Args:
        owner: what should have it; for what is called a class, for what is read an object.
        name: of what is overridden, called, read or set.
        expected: the arguments of what is called, without their types; the type of what is read or set.
    """
    home = owner.__name__ if isinstance(owner, ModuleType | type) else type(owner).__name__
    release, where = f"uvicorn {uvicorn.__version__}", f"{home}.{name}"
    if not hasattr(owner, name):
        return f"{release} has no {where} any more, which the socket code of the service needs"
    found = getattr(owner, name)
    kind = type(found).__name__
    fault = None
    if isinstance(expected, type):
        if isinstance(getattr(type(owner), name, None), property):
            fault = "is a property, and can perhaps not be set any more"
        elif not isinstance(found, expected):
            fault = f"is of type {kind}, not {expected.__name__}"
    elif not callable(found):
        fault = f"is of type {kind}, and cannot be called any more"
    elif (looks := describe_arguments(found)) != expected:
        fault = f"takes {looks}, and the socket code was made for {expected}"
    return fault and f"{where} of {release} {fault}"


def describe_arguments(called: Any) -> str:  # noqa: ANN401 - whatever can be called
    """Name the arguments and their defaults as a `def` does, without types; `async` before what is awaited."""
    signature = inspect.signature(called)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    arguments = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return f"async {arguments}" if inspect.iscoroutinefunction(called) else arguments


def find_used(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Name what a module of ours has to do with uvicorn's objects: (`cycle`, `keep_alive`), ..."""
    tree = ast.parse(Path(module.__file__ or "").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _find_owners(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "uvicorn._types":
            yield from (("types", alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestResponseCycle":
            yield "cycle", "__init__"
    for kind, ours in SUBCLASSES:
        if ours.__module__ == module.__name__:
            own = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute) and _last_name(one) == "self"}
            names = own | set(vars(ours)) - set(vars(type("Plain", (), {}))) | {"__init__"}
            yield from ((kind, name) for name in sorted(names) if hasattr(make_objects()[kind], name))


def _find_owners(node: ast.Attribute) -> Iterator[tuple[str, str]]:
    kind = _last_name(node)
    if kind in make_objects() and hasattr(make_objects()[kind], node.attr):
        yield kind, node.attr


def _last_name(node: ast.Attribute) -> str:
    """What comes before the last dot: `cycle` of `self.cycle.keep_alive`."""
    return ast.unparse(node.value).rpartition(".")[2]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_a_name_of_uvicorn_is_as_the_socket_code_needs_it(kind: str, name: str) -> None:
    expected = NAMES[kind][name]
    fault = find_fault(CLASSES[kind] if isinstance(expected, str) else make_objects()[kind], name, expected)
    assert fault is None, fault


@pytest.mark.parametrize("word", CONFIG_WORDS)
def test_a_word_of_uvicorns_configuration_is_known(word: str) -> None:
    known = inspect.signature(uvicorn.Config).parameters
    assert word in known, f"uvicorn {uvicorn.__version__} has no option {word} any more, which the service sets"


@pytest.mark.parametrize("kind", ["protocol", "server"])
def test_what_logs_is_found_by_its_name(kind: str) -> None:
    logger = make_objects()["protocol"].logger if kind == "protocol" else uvicorn.server.logger  # type: ignore[attr-defined]
    assert logger.name == "uvicorn.error", "the service silences cut requests by the name of uvicorn's logger"


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.__name__)
def test_the_table_has_every_name_that_is_used(module: ModuleType) -> None:
    missing = {f"{kind}.{name}" for kind, name in find_used(module) if name not in NAMES[kind]}
    assert missing == set(), f"{module.__name__} uses these of uvicorn, or calls something of its own like them"


def test_the_table_has_no_name_that_nobody_uses() -> None:
    used = {pair for module in OURS for pair in find_used(module)}
    unused = {(kind, name) for kind, names in NAMES.items() for name in names} - used
    assert unused == set(), "the socket code uses these no longer; take them out of the table"


def test_the_table_has_every_word_of_the_configuration() -> None:
    words: set[str | None] = set()
    for module in OURS:
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "uvicorn.Config":
                words |= {keyword.arg for keyword in node.keywords}
    assert words == set(CONFIG_WORDS)


def test_no_release_is_taken_that_was_not_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "uvicorn"]
    tried = Version(uvicorn.__version__)
    assert wanted.specifier.contains(tried)
    assert not wanted.specifier.contains(f"{tried.major}.{tried.minor + 1}.0")
    assert not wanted.specifier.contains(f"{tried.major + 1}.0.0")


# That the check can fail


class Planted:
    """As uvicorn might be one day."""

    read = 1

    def takes_more(self, data: bytes, flags: int) -> None: ...

    def has_a_default(self, data: bytes = b"") -> None: ...

    def takes_it_by_name(self, *, data: bytes) -> None: ...

    async def is_awaited(self, data: bytes) -> None: ...

    def is_right(self, data: bytes) -> None: ...

    @property
    def only_read(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("name", "expected", "sentence"),
    [
        ("gone", "(self, data)", "has no Planted.gone any more"),
        ("gone", int, "has no Planted.gone any more"),
        ("takes_more", "(self, data)", "takes (self, data, flags), and the socket code was made for (self, data)"),
        ("has_a_default", "(self, data)", "takes (self, data=b''), and the socket code was made for (self, data)"),
        ("takes_it_by_name", "(self, data)", "takes (self, *, data), and the socket code was made for (self, data)"),
        ("is_awaited", "(self, data)", "takes async (self, data), and the socket code was made for (self, data)"),
        ("is_right", "async (self, data)", "takes (self, data), and the socket code was made for async (self, data)"),
        ("read", "(self, data)", "is of type int, and cannot be called any more"),
        ("read", str, "is of type int, not str"),
        ("only_read", int, "is a property"),
    ],
)
def test_a_name_that_changed_is_told_in_a_sentence(name: str, expected: str | type, sentence: str) -> None:
    fault = find_fault(Planted if isinstance(expected, str) else Planted(), name, expected)
    assert fault is not None
    assert f"Planted.{name}" in fault
    assert f"uvicorn {uvicorn.__version__}" in fault
    assert sentence in fault


@pytest.mark.parametrize(("name", "expected"), [("is_right", "(self, data)"), ("read", int), ("read", object)])
def test_a_name_that_is_right_has_no_fault(name: str, expected: str | type) -> None:
    assert find_fault(Planted if isinstance(expected, str) else Planted(), name, expected) is None


def test_a_name_that_is_gone_from_uvicorn_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    make_objects()
    monkeypatch.delattr(HttpToolsProtocol, "_unset_keepalive_if_required")
    with pytest.raises(AssertionError, match=r"has no HttpToolsProtocol\._unset_keepalive_if_required any"):
        test_a_name_of_uvicorn_is_as_the_socket_code_needs_it("protocol", "_unset_keepalive_if_required")


def test_a_signature_of_uvicorn_that_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    make_objects()
    monkeypatch.setattr(HttpToolsProtocol, "on_header", lambda self, name, value, index: None)  # noqa: ARG005 - planted
    with pytest.raises(AssertionError, match=r"takes \(self, name, value, index\), and the socket code was made for"):
        test_a_name_of_uvicorn_is_as_the_socket_code_needs_it("protocol", "on_header")


def test_a_name_that_the_table_lacks_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text("def end(cycle, flow):\n    cycle.disconnected = True\n    flow.drain()\n    flow.ours()\n")
    module: Any = SimpleNamespace(__file__=str(path), __name__="planted")
    assert set(find_used(module)) == {("cycle", "disconnected"), ("flow", "drain")}
