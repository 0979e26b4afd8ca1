"""What `unihead-predict` takes: stdin, files that have like names, and names that a terminal would obey."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.commands import files
from service.commands.predict import main
from tests.service.fakes import encode, make_picture

PICTURE = encode(make_picture())
NASTY = "a\x1b[2J\x1b]0;owned\x07b.png"

Predict = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Predict:
    def run(*words: str | Path) -> tuple[int | str | None, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([*map(str, words), "--model", str(tiny_model)])
        return (stop.value.code, *capsys.readouterr())

    return run


@contextlib.contextmanager
def stdin_of(path: str | Path) -> Iterator[None]:
    """Let descriptor 0 be a file."""
    before, handle = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(handle, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(handle)


def test_a_dash_means_stdin(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PICTURE)
    with stdin_of(tmp_path / "photo.png"):
        code, out, _ = predict("-", tmp_path / "photo.png", "--json")
    piped, named = (json.loads(line) for line in out.splitlines())
    assert (code, piped.pop("file"), named.pop("file")) == (0, "-", str(tmp_path / "photo.png"))
    del piped["timing_ms"], named["timing_ms"]
    assert piped == named


def test_what_a_pipe_brings_is_a_picture(tmp_path: Path, tiny_model: Path) -> None:
    command = [sys.executable, "-c", "from service.commands.predict import main; main()"]
    words = ["-", "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--overlay", "--json"]
    done = subprocess.run([*command, *words], input=PICTURE, capture_output=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["image"]) == (0, {"width": 48, "height": 32}), done.stderr
    assert [path.name for path in (tmp_path / "out" / "overlays").iterdir()] == ["_.jpg"]


@pytest.mark.parametrize(("device", "code"), [("/dev/zero", "unreadable_file"), ("/dev/null", "unreadable_file")])
@pytest.mark.timeout(30)
def test_a_device_as_stdin_is_refused(predict: Predict, device: str, code: str) -> None:
    with stdin_of(device):
        exit_code, out, err = predict("-", "--json")
    assert (exit_code, json.loads(out)["error"]["code"]) == (1, code)
    assert "has to be a file or a pipe" in err


def test_no_more_of_stdin_is_read_than_of_a_file(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.png").write_bytes(PICTURE)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    with stdin_of(tmp_path / "photo.png"):
        _, out, _ = predict("-", "--json")
    assert json.loads(out)["error"]["code"] == "body_too_large"


def test_stdin_has_no_name_to_go_on_by(predict: Predict, tmp_path: Path) -> None:
    code, _, err = predict("-", "--out", tmp_path / "out", "--resume")
    assert (code, "stdin has none" in err) == (2, True)


def test_devices_and_fifos_do_not_stop_the_others(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PICTURE)
    os.mkfifo(tmp_path / "fifo.png")
    code, out, err = predict("/dev/zero", tmp_path / "fifo.png", tmp_path, tmp_path / "photo.png", "--json")
    errors = {Path(one["file"]).name: one.get("error", {}).get("code") for one in map(json.loads, out.splitlines())}
    assert (code, errors) == (1, {"zero": "unreadable_file", "fifo.png": "unreadable_file", "photo.png": None})
    assert f"left out      {tmp_path / 'fifo.png'}: no regular file" in err


def test_what_a_folder_has_beside_pictures_is_named(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(PICTURE)
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    code, out, err = predict(tmp_path)
    assert (code, out.startswith(f"{tmp_path / 'photo'}: ")) == (0, True)
    assert f"left out      {tmp_path / 'film.gif'}: a GIF" in err
    (tmp_path / "photo").unlink()
    code, _, err = predict(tmp_path)
    assert (code, err) == (
        3,
        f"unihead-predict: no pictures in {tmp_path}; left out {tmp_path / 'film.gif'}: a GIF\n",
    )


def test_pictures_of_like_names_have_overlays_of_their_own(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a/x.jpg", "b/x.jpg", "x.jpg", "x.png", "x.png.jpg", "x", "x.JPG", "x.jpg.jpg", "_/x.jpg"]
    for number, name in enumerate(names):
        Path(name).parent.mkdir(exist_ok=True)
        kind = "JPEG" if name.lower().endswith("jpg") else "PNG"
        Path(name).write_bytes(encode(make_picture(60 + number, 40, seed=number), kind))
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    words = [*(f"../{name}" for name in names), tmp_path / "x.jpg"]
    code, _, err = predict(*words, "--out", "out", "--overlay")
    assert code == 0, err
    sizes = []
    for path in Path("out/overlays").rglob("*.*"):
        with Image.open(path) as overlay:
            sizes.append(overlay.size[0])
    assert sorted(sizes) == sorted([*range(60, 60 + len(names)), 62])


def test_names_do_nothing_to_a_terminal(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / NASTY).write_bytes(PICTURE)
    (tmp_path / f"{NASTY}.txt").write_text("hello")
    (tmp_path / f"{NASTY}.jpg").write_text("hello")
    for words in ([tmp_path], [f"{tmp_path}/missing/{NASTY}"], [f"--{NASTY}"], [tmp_path, "--tasks", NASTY]):
        _, out, err = predict(*words)
        assert all(line.isprintable() for line in (out + err).split("\n")), out + err


def test_classes_of_a_model_do_nothing_to_a_terminal(
    tmp_path: Path, write_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(f"{number}\x1b[2J\r\n" for number in range(4))
    model = write_model(tmp_path / "m.onnx", ("detect", "classify"), detection_classes=names)
    (tmp_path / "photo.png").write_bytes(PICTURE)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "photo.png"), "--model", str(model)])
    out, err = capsys.readouterr()
    assert r"1\x1b[2J\r\n 0.90" in out
    assert all(line.isprintable() for line in (out + err).split("\n"))
