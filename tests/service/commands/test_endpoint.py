from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from service.cli import main
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
