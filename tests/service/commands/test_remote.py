"""`unihead-predict --url` beside a service that means harm, or that is none."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.answers.masks import encode_rle
from service.commands.predict import main
from tests.service.fakes import encode, make_picture

NASTY = "\x1b]0;owned\x07\x1b[31mcat\r\nfake\x9b2J"
CONTRACT = {
    "tasks": ["segment", "detect", "classify"],
    "segmentation_classes": ["background", NASTY],
    "detection_classes": ["bicycle", NASTY],
    "classification_classes": ["tench", NASTY],
}
INFO: Mapping[str, Any] = {"model": {"version": "v"}, "contract": CONTRACT}
GOOD: Mapping[str, Any] = {
    "model": {"name": "m", "version": "v"},
    "image": {"width": 48, "height": 32},
    "detections": [{"box": [0, 0, 1, 1], "label": NASTY, "label_id": 1, "score": 0.9}],
    "classes": [{"label": NASTY, "label_id": 1, "probability": 1.0}],
    "segments": [{"label": NASTY, "label_id": 1, "pixels": 1536, "fraction": 1.0}],
    "mask": {
        "encoding": "rle",
        "size": [32, 48],
        "segments": [{"label_id": 1, "counts": encode_rle(np.ones((32, 48), np.uint8))[1]}],
    },
    "timing_ms": {"total": 1.0},
}
Run = tuple[int | str | None, str, str]
# Of each answer: status and body, or None for a connection that is closed.
Answers = Callable[[str, int], tuple[int, bytes] | None]


@contextlib.contextmanager
def serve(answers: Answers) -> Iterator[str]:
    """A service that answers as the function says, which is given a path and how many pictures have come."""
    count = 0

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(count)

        def do_POST(self) -> None:
            nonlocal count
            self.rfile.read(int(self.headers["Content-Length"]))
            count += 1
            self._answer(count)

        def _answer(self, number: int) -> None:
            said = answers(self.path.partition("?")[0], number)
            if said is None:
                self.close_connection = True
                return
            self.send_response(said[0])
            self.send_header("Content-Length", str(len(said[1])))
            self.end_headers()
            self.wfile.write(said[1])

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answer(picture: object, *, info: object = INFO, ready: int = 200, bad: int = 2) -> Answers:
    """Good answers, but about the picture of that number."""

    def say(path: str, number: int) -> tuple[int, bytes] | None:
        if path == "/info":
            return 200, json.dumps(info).encode()
        if path == "/readyz":
            return ready, b"{}"
        said: object = picture if number == bad else GOOD
        if said is None or isinstance(said, tuple):
            return said
        return 200, said if isinstance(said, bytes) else json.dumps(said).encode()

    return say


@pytest.fixture
def predict(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Answers, *tuple[str, ...]], Run]:
    monkeypatch.setattr("service.commands.remote.RETRIES", 0)
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encode(make_picture(48, 32, seed=number)))

    def run(answers: Answers, *words: str) -> Run:
        with serve(answers) as url, pytest.raises(SystemExit) as stop:
            main([str(tmp_path), "--url", url, "--jobs", "1", *words])
        return (stop.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"hello", "unreadable_answer"),
        (b"[" * 100_000, "unreadable_answer"),
        ({**GOOD, "mask": {"size": [32, 48], "segments": [{"label_id": 10**30, "counts": "01"}]}}, "unreadable_answer"),
        ({**GOOD, "timing_ms": {"total": "soon"}}, "unreadable_answer"),
        ({**GOOD, "detections": [{**GOOD["detections"][0], "label_id": 7}]}, "unreadable_answer"),
        ({**GOOD, "segments": [{**GOOD["segments"][0], "label": "dog"}]}, "unreadable_answer"),
        (None, "no_answer"),
        ((500, b"{}"), "status_500"),
        ((302, b""), "status_302"),
        ((422, b'{"code": "damaged_image", "detail": "cut"}'), "damaged_image"),
    ],
    ids=["noise", "deep", "run lengths", "types", "class", "label", "broken", "500", "redirect", "refused"],
)
def test_one_bad_answer_does_not_lose_the_others(predict: Callable[..., Run], bad: object, code: str) -> None:
    exit_code, out, _ = predict(answer(bad), "--json")
    codes = [json.loads(line).get("error", {}).get("code") for line in out.splitlines()]
    assert (exit_code, codes) == (1, [None, code, None, None])


def test_an_answer_about_another_picture_is_not_drawn(predict: Callable[..., Run], tmp_path: Path) -> None:
    other = {**GOOD, "image": {"width": 4, "height": 4}, "detections": [], "mask": None}
    code, out, _ = predict(answer(other), "--json", "--overlay", "--out", str(tmp_path / "out"))
    codes = [json.loads(line).get("error", {}).get("code") for line in out.splitlines()]
    assert (code, codes) == (1, [None, "unreadable_answer", None, None])
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3


@pytest.mark.parametrize("ready", [503, 502, 404])
def test_a_service_that_is_gone_ends_the_run(predict: Callable[..., Run], ready: int) -> None:
    code, out, err = predict(answer(None, ready=ready), "--json")
    assert (code, len(out.splitlines()), "does not answer" in err) == (3, 1, True)


@pytest.mark.parametrize(
    "info",
    [
        {},
        [],
        {"model": {}},
        {"model": [], "contract": CONTRACT},
        {"model": {"version": "v"}, "contract": []},
        {"model": {"version": "v"}, "contract": {**CONTRACT, "tasks": 5}},
        {"model": {"version": "v"}, "contract": {**CONTRACT, "tasks": [NASTY]}},
        {"model": {"version": "v"}, "contract": {**CONTRACT, "detection_classes": 5}},
        {"model": {"version": "v"}, "contract": {**CONTRACT, "detection_classes": [5]}},
    ],
    ids=range(9),
)
def test_what_is_no_service_is_one_sentence(predict: Callable[..., Run], info: object) -> None:
    code, out, err = predict(answer(GOOD, info=info))
    assert (code, out, err.count("\n")) == (3, "", 1)


def test_a_service_that_tells_no_names_answers_and_is_not_written_for_others(
    predict: Callable[..., Run], tmp_path: Path
) -> None:
    silent = answer(GOOD, info={"model": {"version": "v"}})
    code, out, _ = predict(silent, "--json")
    assert (code, len(out.splitlines())) == (0, 4)
    for words in (["--coco", str(tmp_path / "f.json")], ["--yolo", str(tmp_path / "set")]):
        code, _, err = predict(silent, *words)
        assert (code, "does not tell" in err) == (2, True)


def test_text_of_a_service_does_nothing_to_a_terminal(predict: Callable[..., Run]) -> None:
    refused = json.dumps({"code": NASTY, "detail": NASTY}).encode()
    code, out, err = predict(answer((422, refused)))
    assert (code, out.count("fake"), err.count("failed        ")) == (1, 11, 1)
    assert all(line.isprintable() for line in (out + err).split("\n")), out + err
