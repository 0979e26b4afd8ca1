import hashlib
import io
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.training.data.prepare.running import FEW, parse
from training.data.prepare.download import download_part, download_release
from training.data.prepare.progress import ProgressBar
from training.data.prepare.releases import Part, PrepareError, Release

ARCHIVE = "pictures.zip"
CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges if `has_ranges`; breaks off as often as `breaks` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {ARCHIVE: CONTENT}
        self.breaks = 0
        self.has_ranges = True
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        if (content := self.server.files.get(self.path.lstrip("/"))) is None:
            self.send_error(404)
            return
        start = int(re.sub(r"\D", "", wanted)) if wanted and self.server.has_ranges else 0
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def make_part(md5: str | None = None) -> Part:
    return Part("pictures", ARCHIVE, "http://official.invalid/pictures.zip", md5)


def fetch(server: Server, cache: Path, md5: str | None = None) -> list[tuple[int, int]]:
    """Download over the mirror; gives back the progress that was reported."""
    told: list[tuple[int, int]] = []
    release = Release("Pictures", (make_part(md5),), "pictures/*.jpg")
    download_release(release, cache, lambda _, here, total: told.append((here, total)), server.url)
    return told


def test_a_download_has_the_content_and_reports_its_end(server: Server, tmp_path: Path) -> None:
    told = fetch(server, tmp_path / "new" / "cache", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())

    assert (tmp_path / "new" / "cache" / ARCHIVE).read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "new" / "cache").iterdir()] == [ARCHIVE]


def test_a_download_goes_on_where_the_server_broke_off(server: Server, tmp_path: Path) -> None:
    server.breaks = 7  # more than the failures that are allowed in a row: each brought something

    fetch(server, tmp_path)

    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT
    assert server.ranges[:3] == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_a_download_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{ARCHIVE}.part").write_bytes(CONTENT[:1000])

    fetch(server, tmp_path)

    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT


def test_a_part_file_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{ARCHIVE}.part").write_bytes(CONTENT)

    fetch(server, tmp_path)

    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_again(server: Server, tmp_path: Path) -> None:
    server.has_ranges = False
    (tmp_path / f"{ARCHIVE}.part").write_bytes(b"stale")

    fetch(server, tmp_path)

    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT


def test_an_archive_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(b"here")

    fetch(server, tmp_path)

    assert server.ranges == []


def test_a_wrong_checksum_is_refused_and_the_next_run_begins_anew(server: Server, tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    server.files[ARCHIVE] = CONTENT[:-1] + b"?"

    with pytest.raises(PrepareError, match=f"wanted {md5}; deleted, run the command again"):
        fetch(server, tmp_path, md5)

    assert not list(tmp_path.iterdir())
    server.files[ARCHIVE] = CONTENT
    fetch(server, tmp_path, md5)
    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT


def test_a_part_file_longer_than_the_archive_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{ARCHIVE}.part").write_bytes(CONTENT + b"more")

    with pytest.raises(PrepareError, match=f"{len(CONTENT) + 4} bytes came, {len(CONTENT)} were announced"):
        fetch(server, tmp_path)

    assert not list(tmp_path.iterdir())


def test_an_archive_that_the_server_lacks_is_named(server: Server, tmp_path: Path) -> None:
    del server.files[ARCHIVE]

    with pytest.raises(PrepareError, match=r"pictures\.zip: HTTP Error 404"):
        fetch(server, tmp_path)


def test_a_server_that_does_not_answer_is_named_and_the_part_stays(tmp_path: Path) -> None:
    with Server() as gone:
        url = f"{gone.url}/{ARCHIVE}"
    (tmp_path / f"{ARCHIVE}.part").write_bytes(b"half")

    with pytest.raises(PrepareError, match="run the command again to go on where it stopped"):
        download_part(make_part(), url, tmp_path, lambda *_: None)

    assert (tmp_path / f"{ARCHIVE}.part").read_bytes() == b"half"


def test_the_command_downloads_and_prepares(
    server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {path.name: path.read_bytes() for path in archives.glob("*.zip")}
    words = ["--download", "--mirror", server.url, "--cache", tmp_path / "cache", "--tasks", "detection"]
    options = parse(*words, "--out", tmp_path / "out", *FEW)

    assert options.run(options) == 0

    assert (tmp_path / "out" / "mini_coco_det" / "manifest.json").is_file()
    assert re.search(r"val2017\.zip \[#{24}\] 100 %", capsys.readouterr().err)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_speed_and_time_left() -> None:
    seconds = iter([0.0, 0.1, 10.0, 30.0])
    terminal = Terminal()
    bar = ProgressBar(terminal, lambda: next(seconds))

    for mib in (100, 110, 200, 400):  # the first 100 came in an earlier run
        bar("train2017.zip", mib << 20, 400 << 20)

    _, halfway, end = terminal.getvalue().split("\r")
    assert halfway == "train2017.zip [############............]  50 % 200 of 400 MiB, 10.0 MiB/s, 0:00:20 left\033[K"
    assert end.endswith("100 % 400 of 400 MiB, 10.0 MiB/s, 0:00:00 left\033[K\n")


def test_the_bar_writes_a_line_for_every_tenth_where_there_is_no_terminal() -> None:
    log = io.StringIO()
    bar = ProgressBar(log, lambda: 0.0)

    for mib in range(101):
        bar("val2017.zip", mib << 20, 100 << 20)

    assert len(log.getvalue().splitlines()) == 10
