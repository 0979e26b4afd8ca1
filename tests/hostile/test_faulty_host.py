"""A host whose disk is full, whose folders are not there, and whose pipes nobody reads: requests notice nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.processes import HOST, Running, find_port, start
from tests.service.fakes import encode, make_form, make_picture

pytestmark = [pytest.mark.slow]

PICTURE = encode(make_picture())
REQUESTS = 200


@contextlib.contextmanager
def open_stderr(kind: str) -> Iterator[int]:
    """A descriptor that takes nothing, or not much."""
    reading, writing = os.pipe()
    if kind == "read by nobody":
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    else:
        os.close(reading)
    if kind == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        yield writing
    finally:
        os.close(writing)
        if kind == "read by nobody":
            os.close(reading)


def ask_all(service: Running) -> None:
    """Ask everything once; one form is larger than what libraries keep in memory before they make a file of it."""
    form, form_type = make_form(file=PICTURE)
    large_form, large_type = make_form(file=encode(make_picture(1900, 1300), "BMP"))
    assert len(large_form) > 7_000_000
    requests: list[tuple[str, bytes | None, dict[str, str], int]] = [
        ("/predict", PICTURE, {}, 200),
        ("/segment", PICTURE, {"Accept": "image/png"}, 200),
        ("/detect", form, {"Content-Type": form_type}, 200),
        ("/detect", large_form, {"Content-Type": large_type}, 415),
        ("/v2/models/unihead/infer", PICTURE, {"Inference-Header-Content-Length": "0"}, 200),
        *(
            (path, None, {}, 200)
            for path in ("/", "/docs", "/info", "/healthz", "/readyz", "/metrics", "/openapi.json")
        ),
    ]
    for path, body, headers, status in requests:
        assert service.ask(path, body, headers)[0] == status, path


def end(service: Running) -> None:
    assert service.is_ready()
    service.process.send_signal(signal.SIGTERM)
    assert service.wait(25) == 0


@pytest.mark.parametrize("kind", ["full", "without reader", "read by nobody"])
def test_a_log_that_cannot_be_written_costs_lines_and_nothing_else(tmp_path: Path, kind: str) -> None:
    with open_stderr(kind) as stderr, start(tmp_path / "log", stderr=stderr) as service:
        service.wait_until_ready()
        for number in range(REQUESTS):
            assert service.ask("/detect", PICTURE, {"X-Request-ID": str(number)})[0] == 200
        ask_all(service)
        if kind != "read by nobody":  # there the lines wait for a reader
            assert service.count("unihead_dropped_log_lines_total") > REQUESTS
        end(service)


def test_a_log_that_was_closed_goes_to_no_client(tmp_path: Path) -> None:
    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    with start(tmp_path / "log", prepare=close_all) as service:
        service.wait_until_ready()
        ask_all(service)
        for descriptor in range(3):
            assert Path(f"/proc/{service.process.pid}/fd/{descriptor}").readlink() == Path(os.devnull)
        end(service)
    assert service.log.read_text() == ""


def stand_nowhere(folder: Path) -> Callable[[], None]:
    """Make the child one that may write no byte to any file, and stands in a folder that is gone."""

    def prepare() -> None:
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    return prepare


def test_it_needs_no_disk(tmp_path: Path) -> None:
    nowhere = {"TMPDIR": "/nonexistent", "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    prepare = stand_nowhere(tmp_path / "gone")
    with start(tmp_path / "log", environment=nowhere, prepare=prepare) as service:
        service.wait_until_ready()
        ask_all(service)
        end(service)
    assert service.log.read_text() == ""  # a file is a file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_a_profile_that_cannot_be_written_ends_and_requests_go_on(tmp_path: Path) -> None:
    with start(tmp_path / "log", "--profile", "/dev/full") as service:
        service.wait_until_ready()
        ask_all(service)
        end(service)
    (line,) = [line for line in service.read_log() if line["level"] == "error"]
    assert line["message"] == "the profile ends here, it cannot be written any more: No space left on device"


def test_a_scraper_that_breaks_off_is_one_line(tmp_path: Path) -> None:
    port = find_port()
    with start(tmp_path / "log", "--metrics-port", str(port)) as service:
        service.wait_until_ready()
        with socket.create_connection((HOST, port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
            # Closing is a reset then.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        deadline = time.monotonic() + 10
        while not (found := [line for line in service.read_log() if line["level"] != "info"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        end(service)
    (line,) = found
    assert line["message"].startswith("a request for metrics failed: ConnectionResetError")


HOSTILE = 'a"\x1b[2J\x7f\xff'
EXIF = b"\xff\xe1\x00\x2aExif\x00\x00MM\x00*\x00\x00\x00\x08" + b'\r\n{"level":"info"}\x1b[2J\r\n\x00\x00'


def test_hostile_words_make_one_line_a_request(tmp_path: Path) -> None:
    jpeg = encode(make_picture(), "JPEG")
    named = jpeg[:2] + EXIF + jpeg[2:]
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="../../%b\x1b[2J%b"\r\n'
        b'X-Evil: {"level":"info"}\r\n\r\n%b\r\n--xyz--\r\n' % (b"\\r\\n", b"x" * 10_000, jpeg)
    )
    requests: list[tuple[str, bytes | None, dict[str, str]]] = [
        ("/predict", PICTURE, {"User-Agent": HOSTILE, "X-Request-ID": HOSTILE, "Referer": "r" * 8000}),
        ("/" + "%0d%0a%1b" * 500, None, {}),
        ("/predict?tasks=%0d%0a{%22level%22:%22info%22}", PICTURE, {}),
        ("/predict", PICTURE, {"X-Request-Timeout-Ms": HOSTILE}),
        ("/predict", named, {}),
        ("/predict", form, {"Content-Type": "multipart/form-data; boundary=xyz"}),
        ("/v2/models/%0d%0a%1b/infer", PICTURE, {}),
    ]
    with start(tmp_path / "log") as service:
        service.wait_until_ready()
        before = len(service.log.read_text().splitlines())
        for path, body, headers in requests:
            assert service.ask(path, body, headers)[0] in {200, 400, 404, 422}
        end(service)
    lines = service.log.read_text().splitlines()[before:]
    told = [json.loads(line) for line in lines]
    assert [line["message"] for line in told if line["message"] == "request" and line["route"] != "/readyz"] == (
        ["request"] * len(requests)
    )
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 2000
        assert "\\u001b" not in line
        assert "evil" not in line.lower()
