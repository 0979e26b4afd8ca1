"""`unihead-serve`: start the service, ask a running one whether it is ready, or for new keys and a new model."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.commands.endpoint import EndpointError, add_key_option, check_url, get, make_key_headers
from service.errors import UniheadError
from service.machine import find_version
from service.server.pid_file import read_pid
from service.words import is_service_link, make_printable

_PROGRAM = "unihead-serve"
_POLL_S = 0.1
# Twice what the service gives each of keys and model, and the reload before.
_RELOAD_S = 240
_STDERR = 2


def main(arguments: Sequence[str] | None = None, descriptor: int | None = None) -> None:
    """Run the command; the service is imported only to be started, so that `health` takes milliseconds.

    Args:
        arguments: of the command line; None: those of this process.
        descriptor: of a socket for the service to listen on, see `service.commands.spawn`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        try:
            sys.exit(COMMANDS[words[0]](words[1:]))
        except (UniheadError, OSError) as error:
            print(make_printable(str(error)), file=sys.stderr)
            sys.exit(1)
    if words[:1] == ["--print-completion"]:
        from service.commands.completion import complete_serve  # noqa: PLC0415 - health needs none of it

        complete_serve(words, COMMANDS)
    if words == ["--version"]:
        print(f"{_PROGRAM} {find_version('unihead')}")
        return
    _fill_standard_descriptors()
    with _leave_at_once():
        _serve(words, descriptor)


def _serve(words: Sequence[str], descriptor: int | None) -> None:
    from service.server.serve import StartError, serve  # noqa: PLC0415 - takes most of a second

    try:
        serve(words, descriptor)
    except StartError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        sys.exit(error.code)


def _fill_standard_descriptors() -> None:
    """Where a parent has closed stdin, stdout or stderr, the log would go to the next file or client that is opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)


def _make_keys(words: Sequence[str]) -> int:
    from service.commands.key import main as key  # noqa: PLC0415 - health needs none of it

    return key(words)


def _bench(words: Sequence[str]) -> int:
    from service.commands.bench import main as bench  # noqa: PLC0415 - takes most of a second

    return bench(words)


def _selftest(words: Sequence[str]) -> int:
    from service.commands.selftest import main as selftest  # noqa: PLC0415 - takes most of a second

    return selftest(words)


@contextlib.contextmanager
def _leave_at_once() -> Iterator[None]:
    """Until the service has handlers of its own: a container's first process would not even notice SIGTERM."""
    handlers = {number: lambda *_: os._exit(0) for number in (signal.SIGTERM, signal.SIGINT)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing has been read that could change
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_health(words: Sequence[str]) -> int:
    """Return 0 if the service at --url is ready; for the HEALTHCHECK of a container.

    Raises:
        EndpointError: it is not.
    """
    options = _parse(
        argparse.ArgumentParser(f"{_PROGRAM} health", description="Exit 0 if the service is ready."), words, 2
    )
    get(options.url, "/readyz", options.timeout_s, make_key_headers(options))
    return 0


def _ask_reload(words: Sequence[str]) -> int:
    """Send SIGHUP to the process of a pid file, wait until keys and model are read anew, and say how that went."""
    parser = argparse.ArgumentParser(
        f"{_PROGRAM} reload",
        description="Let a running service read its key file, if it has one, and then its model file anew. "
        "Exit 0 if what the files hold is in force now, 1 if not.",
    )
    pid_file = os.environ.get("UNIHEAD_PID_FILE")
    parser.add_argument(
        "--pid-file", type=Path, default=pid_file, required=pid_file is None, help="as the service was started with"
    )
    options = _parse(parser, words, _RELOAD_S)
    headers = make_key_headers(options)
    _get_info(options.url, headers)  # before anything is reloaded whose outcome could not be asked for
    asked_at = time.time()
    try:
        os.kill(read_pid(options.pid_file), signal.SIGHUP)
    except (OSError, ValueError) as error:
        print(f"{options.pid_file} names no process that can be signalled: {error}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + options.timeout_s
    while not _has_reloaded_since(asked_at, info := _get_info(options.url, headers)):
        if time.monotonic() > deadline:
            raise EndpointError(f"{options.url} has not finished within {options.timeout_s:g} s")
        time.sleep(_POLL_S)
    keys, model = info["keys"], info["last_reload"]
    refused = 0
    if keys is not None and keys["last_reload"]["outcome"] == "refused":
        print(make_printable(f"refused, the old keys stay: {keys['last_reload']['reason']}"), file=sys.stderr)
        refused = 1
    elif keys is not None:
        print(f"keys {keys['last_reload']['outcome']}, {keys['in_force']} in force")
    if model["outcome"] == "refused":
        print(make_printable(f"refused, the old model stays: {model['reason']}"), file=sys.stderr)
        return 1
    print(make_printable(f"{model['outcome']}: the model with SHA-256 {model['sha256']} answers"))
    return refused


def _get_info(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        return dict(json.loads(get(url, "/info", 10, headers)))
    except (ValueError, TypeError, RecursionError) as error:
        raise EndpointError(f"{url}/info cannot be read: {error}") from error


def _has_reloaded_since(asked_at: float, info: Mapping[str, Any]) -> bool:
    """Whether all that is read anew has been; what somebody else has begun before may have read what was there then."""
    try:
        reloads = [info["last_reload"], *([info["keys"]["last_reload"]] if info["keys"] is not None else [])]
        return all(last is not None and last["started_at"] >= asked_at for last in reloads)
    except (KeyError, TypeError) as error:
        raise EndpointError("what answers to /info is no unihead service") from error


def _parse(parser: argparse.ArgumentParser, words: Sequence[str], timeout_s: float) -> argparse.Namespace:
    port = os.environ.get("UNIHEAD_PORT", "8000")
    default = f"http://127.0.0.1:{'8000' if is_service_link(port) else port}"
    parser.add_argument("--url", type=check_url, default=default, help="of the service (default: %(default)s)")
    add_key_option(parser)
    parser.add_argument("--timeout-s", type=float, default=timeout_s, help="seconds to wait (default: %(default)s)")
    return parser.parse_args(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "health": _ask_health,
    "reload": _ask_reload,
    "key": _make_keys,
    "selftest": _selftest,
    "bench": _bench,
}
