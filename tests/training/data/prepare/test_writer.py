import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.data.prepare.running import FEW, SETS, Run, parse
from training.config import Task
from training.data.prepare.command import prepare as make_sets
from training.data.prepare.releases import RELEASES, PrepareError
from training.data.prepare.sources import Files, open_release

# 3 train and 2 val pictures a task: enough for every kind of file, few enough to fail at each of them.
TINY = (*FEW, "--train-total", "3", "--val-total", "2")


@pytest.fixture(scope="module")
def files(trees: Path) -> dict[Task, Files]:
    return {task: open_release(trees, RELEASES[task]) for task in Task}


class FullDiskError(OSError):
    pass


class Disk:
    """Writes `room` files, half of the next one, and no more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written: list[Path] = []

    def write(self, path: Path, body: bytes) -> None:
        if len(self.written) == self.room:
            path.write_bytes(body[: len(body) // 2])
            raise FullDiskError("no space left on device")
        path.write_bytes(body)
        self.written.append(path)


def test_a_failure_at_any_file_leaves_nothing(files: dict[Task, Files], tmp_path: Path) -> None:
    options = parse("--from", "unused", "--out", tmp_path / "out", *TINY)
    room = 0
    while True:
        disk = Disk(room)
        try:
            make_sets(options, files, disk.write)
            break
        except FullDiskError:
            assert not list(tmp_path.iterdir())
            room += 1

    # Two files for a picture of VOC, one of COCO, one of Imagenette; two labels.json; three manifests.
    assert room == 5 * (2 + 1 + 1) + 2 + 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(SETS)


def test_the_manifest_is_the_last_file_of_its_set(files: dict[Task, Files], tmp_path: Path) -> None:
    disk = Disk(999)
    make_sets(parse("--from", "unused", "--out", tmp_path / "out", *TINY), files, disk.write)

    for folder in SETS:
        assert [path.name for path in disk.written if folder in path.parts][-1] == "manifest.json"


def test_a_killed_run_leaves_no_set_and_the_next_one_says_so(
    prepare: Run, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
import os, sys
from pathlib import Path
from tests.training.data.prepare.running import parse
from training.config import Task
from training.data.prepare.command import prepare
from training.data.prepare.releases import RELEASES
from training.data.prepare.sources import open_release

def write(path, body):
    path.write_bytes(body)
    if path.name == "manifest.json" and "imagenette_160" in path.parts:  # the very last file
        print("waiting", flush=True)
        sys.stdin.read()

files = {task: open_release(Path(sys.argv[1]), RELEASES[task]) for task in Task}
prepare(parse("--from", *sys.argv[1:]), files, write)
"""
    words = [str(trees), "--out", str(tmp_path / "out"), *TINY]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        os.kill(process.pid, signal.SIGKILL)

    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".out.")
    assert prepare(tmp_path / "out") == 0
    assert f"note: {leftover} is of a run that was killed or still runs" in capsys.readouterr().out


def test_an_out_that_comes_up_meanwhile_is_not_touched(files: dict[Task, Files], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write(path: Path, body: bytes) -> None:
        path.write_bytes(body)
        out.mkdir(exist_ok=True)
        (out / "mine").touch()

    with pytest.raises(OSError, match="not empty"):
        make_sets(parse("--from", "unused", "--out", out, *TINY), files, write)

    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_sets_can_be_read_by_others_than_their_owner(files: dict[Task, Files], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    make_sets(parse("--from", "unused", "--out", out, *TINY), files)

    assert out.stat().st_mode & 0o777 == 0o755
    with pytest.raises(PrepareError, match="exists already"):
        make_sets(parse("--from", "unused", "--out", out, *TINY), files)
