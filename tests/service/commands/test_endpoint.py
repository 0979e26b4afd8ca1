from __future__ import annotations

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.cli import main
from service.commands import endpoint
from service.commands.endpoint import EndpointError, check_url, get
from service.commands.spawn import Spawned


@contextmanager
def answer_with(status: int, body: bytes | None = None) -> Iterator[str]:
    """Yield the address of a service that answers with a body, or with the path that was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(self.path.encode() if body is None else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Spawned("127.0.0.1", server.server_port, 0).url
        finally:
            server.shutdown()
            thread.join()


def test_a_path_of_the_address_comes_before_that_of_the_request() -> None:
    with answer_with(200) as url:
        assert get(f"{url}/below/", "/readyz", 10, {}) == b"/below/readyz"


@pytest.mark.parametrize(("status", "sentence"), [(401, "asks for a key, .*--key-file$"), (500, "status 500$")])
def test_what_is_no_200_is_one_sentence_with_the_address(status: int, sentence: str) -> None:
    with answer_with(status, b"") as url, pytest.raises(EndpointError, match=rf"^{url} .*{sentence}"):
        get(url, "/info", 10, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:tcp://10.0.0.1:8000"])
def test_a_port_that_is_none_does_not_answer(url: str) -> None:
    with pytest.raises(EndpointError, match="does not answer: "):
        get(check_url(url), "/readyz", 10, {})


@pytest.mark.parametrize("url", ["localhost:8000", "https://x", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must look like http://127\.0\.0\.1:8000"):
        check_url(url)


def test_a_reload_is_not_asked_of_another_kind_of_service(capsys: pytest.CaptureFixture[str]) -> None:
    with answer_with(200, b"<html>") as url, pytest.raises(SystemExit) as stop:
        main(["reload", "--url", url, "--pid-file", "none"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"{url}/info cannot be read: ")


@contextmanager
def say(beginning: bytes, drop: bytes = b"") -> Iterator[str]:
    """Yield the address of a service that says so whatever it is asked, and then a drop now and then."""
    ended = threading.Event()

    def accept() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(beginning)
            while drop and not ended.wait(0.02):
                connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    "beginning",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"],
    ids=["status line", "header", "body"],
)
def test_an_answer_that_drips_is_no_answer(beginning: bytes) -> None:
    with say(beginning, b"H") as url:
        started = time.monotonic()
        with pytest.raises(EndpointError, match="timed out"):
            get(url, "/readyz", 0.2, {})
        assert time.monotonic() - started < 2


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_MAX_ANSWER_BYTES", 1000)
    with (
        say(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 1001) as url,
        pytest.raises(EndpointError, match="more than 1000 bytes"),
    ):
        get(url, "/info", 10, {})


@pytest.mark.parametrize(
    "beginning", [b"\x1b[2J\r\n\r\n", b"HTTP/1.1 \x1b[31m\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n\x1b"]
)
def test_what_a_service_says_does_nothing_to_a_terminal(beginning: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with say(beginning) as url, pytest.raises(SystemExit) as stop:
        main(["reload", "--url", url, "--pid-file", "none"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


@pytest.mark.parametrize("body", [b"[" * 100_000, b"3", b"[1]", b"\xff"])
def test_what_is_no_info_is_one_sentence(body: bytes) -> None:
    with answer_with(200, body) as url, pytest.raises(SystemExit) as stop:
        main(["reload", "--url", url, "--pid-file", "none"])
    assert stop.value.code == 1


@pytest.mark.parametrize("body", [b"{}", b'{"last_reload": 3, "keys": null}', b'{"last_reload": {}, "keys": 5}'])
def test_an_info_of_something_else_is_one_sentence(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pid").write_text("1")
    monkeypatch.setattr("os.kill", lambda *_: None)
    with answer_with(200, body) as url, pytest.raises(SystemExit) as stop:
        main(["reload", "--url", url, "--pid-file", str(tmp_path / "pid")])
    assert (stop.value.code, capsys.readouterr().err) == (1, "what answers to /info is no unihead service\n")
