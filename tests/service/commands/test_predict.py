from __future__ import annotations

import csv
import http.server
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Client, NoAnswer, Result
from service.commands import options as predict_options
from service.commands.predict import main
from service.commands.spawn import spawn_service
from service.engine.session import OnnxSession
from tests.service.fakes import GOLDEN, encode, make_picture, write_keys

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from service.commands.predict import main; main()"]


class Run:
    """One run of the command, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main(words)
        self.code = stop.value.code
        self.out, self.err = capsys.readouterr()
        self.records = [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures and two files that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encode(make_picture(48 + number, 32, seed=number)))
    (folder / "bad.jpg").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:80])
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Callable[..., Run]:
    def ask(*words: str | Path) -> Run:
        model = [] if "--url" in words else ["--model", str(tiny_model)]
        return Run(capsys, [str(word) for word in words] + model)

    return ask


@pytest.fixture(scope="module")
def url(tiny_model: Path) -> Iterator[str]:
    with spawn_service(["--model", str(tiny_model), "--threads", "1", "--log-level", "error"]) as service:
        yield f"http://{service.host}:{service.port}"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "timing_ms"} for record in records]


def test_a_line_tells_what_a_picture_shows(run: Callable[..., Run], folder: Path) -> None:
    done = run(folder / "0.png")
    assert done.code == 0
    assert done.out.startswith(f"{folder / '0.png'}: bicycle 0.90, person 0.60 | ")
    assert "1 answered, 0 failed" in done.err


def test_files_that_are_no_pictures_do_not_stop_the_others(run: Callable[..., Run], folder: Path) -> None:
    done = run(folder, folder / "missing.jpg", "--json")
    assert done.code == 1
    errors = {Path(one["file"]).name: one.get("error", {}).get("code") for one in done.records}
    assert list(errors.items()) == [
        ("0.png", None),
        ("1.png", None),
        ("2.png", None),
        ("bad.jpg", "unsupported_image"),
        ("cut.png", "damaged_image"),
        ("missing.jpg", "unreadable_file"),
    ]
    assert "3 answered, 3 failed" in done.err
    assert f"failed        {folder / 'bad.jpg'}: unsupported_image: " in done.err
    assert "No such file" in done.err


def test_the_answers_are_those_of_the_service(run: Callable[..., Run], folder: Path, url: str) -> None:
    done = run(folder / "1.png", "--json", "--top-k", "2", "--score-threshold", "0.7")
    query: dict[str, str | float] = {"mask": "rle", "top_k": 2, "score_threshold": 0.7}
    said = httpx.post(f"{url}/predict", params=query, content=(folder / "1.png").read_bytes()).json()
    assert without_times(done.records) == without_times([{"file": str(folder / "1.png"), **said}])
    assert done.records[0]["timing_ms"].keys() == {
        "decode", "preprocess", "forward", "postprocess", "encode", "total"
    }  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--tasks", "detect,classify"], ["--tasks", "segment", "--mask", "none"]])
def test_a_service_gives_the_same_as_this_process(
    run: Callable[..., Run], folder: Path, url: str, words: list[str]
) -> None:
    here, there = run(folder, "--json", *words), run(folder, "--json", "--url", url, "--jobs", "3", *words)
    assert here.code == there.code == 1
    assert without_times(here.records) == without_times(there.records)


def test_only_what_is_asked_for_is_there(run: Callable[..., Run], folder: Path) -> None:
    (record,) = run(folder / "0.png", "--json", "--tasks", "classify").records
    assert set(record) == {"file", "model", "image", "classes", "timing_ms"}
    (record,) = run(folder / "0.png", "--json", "--mask", "none").records
    assert "segments" in record
    assert "mask" not in record


def test_the_mask_is_that_of_the_picture(run: Callable[..., Run], folder: Path) -> None:
    (record,) = run(folder / "0.png", "--json").records
    height, width = record["mask"]["size"]
    assert (width, height) == (48, 32)
    assert {one["label_id"] for one in record["mask"]["segments"]} == {one["label_id"] for one in record["segments"]}


def test_results_are_written_line_by_line(run: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    done = run(folder, "--out", tmp_path / "out")
    assert (done.code, done.out) == (1, "")
    written = [Path(one["file"]).name for one in read(tmp_path / "out" / "results.jsonl")]
    assert written == ["0.png", "1.png", "2.png", "bad.jpg", "cut.png"]


def test_a_run_goes_on_where_an_earlier_one_has_ended(
    run: Callable[..., Run], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "out" / "results.jsonl"
    run(folder, "--out", tmp_path / "out")
    whole = read(results)
    results.write_text("".join(f"{line}\n" for line in results.read_text().splitlines()[:2]) + '{"file":"2.pn')
    passes = count_passes(monkeypatch)
    done = run(folder, "--out", tmp_path / "out", "--resume")
    assert done.code == 1
    assert "1 answered, 2 failed, 2 from an earlier run" in done.err
    assert without_times(read(results)) == without_times(whole)
    assert passes() == 1
    # What failed is tried again, and is there once.
    (folder / "bad.jpg").write_bytes(encode(make_picture()))
    (folder / "cut.png").unlink()
    done = run(folder, "--out", tmp_path / "out", "--resume")
    assert (done.code, passes()) == (0, 2)
    assert sorted(Path(one["file"]).name for one in read(results)) == ["0.png", "1.png", "2.png", "bad.jpg"]


def count_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts passes over pictures; those over blank ones warm up."""
    passes = 0
    really_run = OnnxSession.run

    def run(self: OnnxSession, images: Any) -> Any:  # noqa: ANN401 - arrays
        nonlocal passes
        passes += bool(images.any())
        return really_run(self, images)

    monkeypatch.setattr(OnnxSession, "run", run)
    return lambda: passes


def test_results_are_not_written_over(run: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    run(folder, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    done = run(folder, "--out", tmp_path / "out")
    assert (done.code, "--resume" in done.err) == (2, True)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_answers_of_two_models_are_not_mixed(run: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    run(folder / "0.png", "--out", tmp_path / "out")
    results = tmp_path / "out" / "results.jsonl"
    results.write_text(results.read_text().replace("tiny-0123456789ab", "another"))
    done = run(folder, "--out", tmp_path / "out", "--resume")
    assert (done.code, "answers of the model another" in done.err) == (2, True)


def test_overlays_lie_where_their_pictures_do(
    run: Callable[..., Run], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "deep").mkdir()
    pixels = make_picture(200, 100)
    (folder / "deep" / "photo.jpg").write_bytes(encode(pixels, "JPEG"))
    done = run("photos", "--recursive", "--out", "photos/out", "--overlay")
    assert done.code == 1
    drawn = sorted(str(path.relative_to("photos/out/overlays")) for path in Path("photos/out").rglob("*.jpg"))
    assert drawn == ["photos/0.png.jpg", "photos/1.png.jpg", "photos/2.png.jpg", "photos/deep/photo.jpg"]
    overlay = np.asarray(Image.open("photos/out/overlays/photos/deep/photo.jpg"))
    assert overlay.shape == pixels.shape
    assert np.abs(overlay.astype(int) - pixels).mean() > 5
    # Overlays are no pictures of the next run.
    done = run("photos", "--recursive", "--out", "photos/out", "--resume")
    assert "0 answered, 2 failed, 4 from an earlier run" in done.err


def test_a_service_draws_the_same_overlays(run: Callable[..., Run], folder: Path, tmp_path: Path, url: str) -> None:
    words = [folder / "0.png", "--overlay", "--mask", "none", "--out"]
    run(*words, tmp_path / "here")
    run(*words, tmp_path / "there", "--url", url)
    here, there = (next((tmp_path / one).rglob("*.jpg")).read_bytes() for one in ("here", "there"))
    assert here == there
    assert "mask" not in read(tmp_path / "there" / "results.jsonl")[0]


def test_tables_hold_earlier_runs_too(run: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    from pyarrow import parquet  # noqa: PLC0415 - optional

    out, table, typed = tmp_path / "out", tmp_path / "found.csv", tmp_path / "found.parquet"
    run(folder / "0.png", "--out", out)
    run(folder, "--out", out, "--resume", "--csv", table, "--parquet", typed)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = [Path(row["file"]).name for row in rows if row["kind"] == "picture"]
    assert pictures == ["0.png", "1.png", "2.png", "bad.jpg", "cut.png"]
    assert len([row for row in rows if row["kind"] == "detection"]) == 6
    assert parquet.read_table(typed).num_rows == len(rows)


def test_a_table_needs_no_folder(run: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    done = run(folder, "--csv", tmp_path / "found.csv", "--quiet")
    assert (done.code, done.out, done.err) == (1, "", "")
    assert (tmp_path / "found.csv").read_text().count(",picture,") == 5
    assert sorted(one.name for one in tmp_path.iterdir()) == ["found.csv", "photos"]


def test_nothing_to_do_is_an_error_of_its_own(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for where in ("empty", "missing"):
        done = run(tmp_path / where)
        assert (done.code, done.err) == (3, f"unihead-predict: no pictures in {tmp_path / where}\n")


def test_results_that_cannot_be_written_are_told(run: Callable[..., Run], folder: Path) -> None:
    done = run(folder, "--out", folder / "bad.jpg")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "bad.jpg" in done.err


def test_no_service_is_one_sentence(run: Callable[..., Run], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.remote.RETRIES", 0)
    done = run(folder, "--url", "http://127.0.0.1:1")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "http://127.0.0.1:1 does not answer" in done.err


def test_a_service_that_is_busy_is_asked_again(run: Callable[..., Run], folder: Path) -> None:
    statuses = [503, 401]

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        done = run(folder, "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert statuses == []
    assert (done.code, done.err.count("\n")) == (3, 1)


def test_a_service_that_leaves_ends_the_run_and_keeps_the_results(
    run: Callable[..., Run], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    asked = 0
    really_ask = Client.predict

    def predict(self: Client, picture: bytes, **options: Any) -> Result:  # noqa: ANN401 - Client's
        nonlocal asked
        asked += 1
        if asked > 2:
            raise NoAnswer("the service does not answer: it has left")
        return really_ask(self, picture, **options)

    monkeypatch.setattr(Client, "predict", predict)
    monkeypatch.setattr(Client, "ready", lambda _: False)
    done = run(folder, "--url", url, "--out", tmp_path / "out", "--jobs", "1")
    assert (done.code, "it has left" in done.err) == (3, True)
    assert [Path(one["file"]).name for one in read(tmp_path / "out" / "results.jsonl")] == ["0.png", "1.png"]


@pytest.mark.slow
def test_the_right_key_opens_a_service(
    run: Callable[..., Run], folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write_keys(tmp_path / "keys", phone="uh_right")
    (tmp_path / "key").write_text("uh_right\n")
    with spawn_service(["--model", str(tiny_model), "--keys", str(keys), "--log-level", "error"]) as service:
        words = [folder / "0.png", "--url", f"http://{service.host}:{service.port}"]
        done = run(*words)
        assert (done.code, "key" in done.err) == (3, True)
        assert run(*words, "--key-file", tmp_path / "key").code == 0
        monkeypatch.setenv("UNIHEAD_KEY", "uh_right")
        assert run(*words).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "PICTURE_OR_FOLDER"),
        (["a", "--tasks", "draw"], "known are segment, detect, classify"),
        (["a", "--score-threshold", "2"], "from 0 to 1"),
        (["a", "--score-threshold", "nan"], "from 0 to 1"),
        (["a", "--jobs", "0"], "1 or more"),
        (["a", "--top-k", "x"], "--top-k"),
        (["a", "--mask", "png"], "--mask"),
        (["a", "--resume"], "--out"),
        (["a", "--overlay"], "--out"),
        (["a", "--url", "http://x", "--model", "y"], "leave --model out"),
        (["a", "--speed", "9"], "--speed"),
    ],
)
def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    done = Run(capsys, words)
    assert (done.code, said in done.err) == (2, True)


def test_an_address_that_is_none_and_a_model_that_is_none_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["--url", "localhost:8000"], ["--model", str(folder / "bad.jpg")], ["--model", "missing.onnx"]):
        done = Run(capsys, [str(folder), *words])
        assert (done.code, done.err.count("\n")) == (2, 1)
    monkeypatch.setenv("UNIHEAD_THREADS", "many")
    done = Run(capsys, [str(folder)])
    assert (done.code, "UNIHEAD_THREADS" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("package", "words"), [("httpx", ["--url", "http://127.0.0.1:1"]), ("pyarrow", ["--parquet", "found.parquet"])]
)
def test_a_package_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, words: list[str]
) -> None:
    for module in ("service.client", "service.commands.remote"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    done = Run(capsys, [str(folder), *words])
    assert (done.code, f"{package} is not installed; pip install 'unihead[" in done.err) == (2, True)


def test_a_larger_picture_than_allowed_is_refused_here_too(
    run: Callable[..., Run], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIHEAD_MAX_PIXELS", "100")
    (record,) = run(folder / "0.png", "--json").records
    assert record["error"]["code"] == "too_many_pixels"


def test_help_has_examples_that_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("  unihead-predict")]
    examples = [line.partition("#")[0].partition("|")[0].split() for line in lines]
    assert len(examples) > 5
    for _, *words in examples:
        assert predict_options.parse(words).paths


def begin(*words: str | Path, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's
    return subprocess.Popen([*COMMAND, *map(str, words)], cwd=ROOT, stderr=subprocess.PIPE, **options)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Where the tests run in the background, a shell has them ignore Ctrl-C, and their children would too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_results_that_are_whole(folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    picture = (folder / "0.png").read_bytes()
    for number in range(4000):
        (folder / f"x{number:04}.png").write_bytes(picture)
    results = tmp_path / "out" / "results.jsonl"
    words: list[str | Path] = [
        folder,
        "--out",
        tmp_path / "out",
        "--csv",
        tmp_path / "found.csv",
        "--model",
        tiny_model,
    ]
    with begin(*words) as process:
        deadline = time.monotonic() + 60
        while not (results.exists() and results.stat().st_size > 5000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"answered" in err
    written = read(results)
    assert 0 < len(written) < 4003
    assert (tmp_path / "found.csv").read_text().count(",picture,") == len(written)
    done = subprocess.run([*COMMAND, *map(str, words), "--resume", "--quiet"], cwd=ROOT, check=False)
    assert done.returncode == 1
    assert len({one["file"] for one in read(results)}) == len(read(results)) == 4005


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, tiny_model: Path) -> None:
    picture = (folder / "0.png").read_bytes()
    for number in range(500):
        (folder / f"x{number:03}.png").write_bytes(picture)
    with begin(folder, "--json", "--model", tiny_model, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.slow
def test_sixty_pictures_of_the_shipped_model(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    originals = sorted(GOLDEN.glob("*.jpg"))
    for number in range(60):
        if number < len(originals):
            shutil.copy(originals[number], folder / f"{number:02}.jpg")
        else:
            picture = Image.open(originals[number % len(originals)])
            picture.save(folder / f"{number:02}.jpg", quality=40 + number % 50)
    words = [folder, "--out", tmp_path / "out", "--overlay", "--parquet", tmp_path / "found.parquet"]
    done = subprocess.run([*COMMAND, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 answered, 0 failed" in done.stderr
    records = read(tmp_path / "out" / "results.jsonl")
    assert [Path(one["file"]).name for one in records] == [f"{number:02}.jpg" for number in range(60)]
    assert len(list((tmp_path / "out" / "overlays").rglob("*.jpg"))) == 60
    cats = [one for one in records if any(found["label"] == "cat" for found in one["detections"])]
    assert len(cats) >= 15
    for record in records:
        assert sum(one["fraction"] for one in record["segments"]) == pytest.approx(1, abs=1e-4)
    size = Image.open(io.BytesIO(originals[0].read_bytes())).size
    assert (records[0]["image"]["width"], records[0]["image"]["height"]) == size
