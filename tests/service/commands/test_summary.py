from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from service.commands.results import Record
from service.commands.summary import Progress, Tally, describe


def make_record(label: str, ms: float = 2.0) -> Record:
    return {
        "file": "a.jpg",
        "detections": [{"label": label, "score": 0.5}, {"label": "cat", "score": 0.25}],
        "classes": [{"label": "tench", "probability": 0.75}, {"label": "church", "probability": 0.1}],
        "segments": [{"label": "background", "fraction": 0.6}, {"label": "cat", "fraction": 0.4}],
        "timing_ms": {"forward": ms, "total": 2 * ms},
    }


FAILURE: Record = {"file": "b\x1b[2J.jpg", "error": {"code": "damaged_image", "detail": "it is cut"}}


def test_a_table_says_what_was_found_and_how_fast() -> None:
    tally = Tally()
    tally.add(make_record("dog", 2))
    tally.add(make_record("dog", 4))
    tally.add(make_record("bird"), earlier=True)
    tally.add(FAILURE)
    assert tally.format(seconds=2).split("\n") == [
        "pictures      2 answered, 1 failed, 1 from an earlier run",
        "objects       cat 3, dog 2, bird 1",
        "first class   tench 3",
        "in masks      background 3, cat 3",
        "ms a picture  forward 3.00  total 6.00",
        "pictures/s    1.5",
        "failed        b\\x1b[2J.jpg: damaged_image: it is cut",
    ]


def test_a_stage_that_some_pictures_lack_has_the_mean_of_the_others() -> None:
    tally = Tally()
    tally.add(make_record("dog", 2))
    tally.add({"file": "b.jpg", "timing_ms": {"total": 6.0}})
    assert "ms a picture  forward 2.00  total 5.00" in tally.format(seconds=1).split("\n")


def test_a_long_table_is_cut() -> None:
    tally = Tally()
    for number in range(30):
        tally.add(make_record(f"label {number}"))
        tally.add(FAILURE)
    lines = tally.format(1).split("\n")
    assert "23 others" in lines[1]
    assert lines[-1] == "failed        10 others"
    assert len(lines) == 27


def test_one_line_describes_a_picture() -> None:
    assert describe(make_record("dog")) == "a.jpg: dog 0.50, cat 0.25 | tench 0.75 | background 60%, cat 40%"
    assert describe({"file": "a.jpg", "detections": []}) == "a.jpg: no objects"
    assert describe(FAILURE) == "b\\x1b[2J.jpg: damaged_image: it is cut"


def test_what_was_left_out_is_named_with_why() -> None:
    left_out = {Path(f"{number}.gif"): "a GIF" for number in range(25)}
    lines = Tally().format(1, left_out).split("\n")
    assert lines[1:3] == ["left out      0.gif: a GIF", "left out      1.gif: a GIF"]
    assert lines[-1] == "left out      5 others"


def test_text_from_elsewhere_does_nothing_to_a_terminal() -> None:
    nasty = "\x1b[2J\r\nfake\x9b1m\u202e\ud800"
    record = {
        "file": nasty,
        "detections": [{"label": nasty, "score": 0.5}],
        "classes": [{"label": nasty, "probability": 0.5}],
        "segments": [{"label": nasty, "fraction": 0.5}],
        "timing_ms": {nasty: 1.0},
    }
    failure = {"file": nasty, "error": {"code": nasty, "detail": nasty}}
    tally = Tally()
    tally.add(record)
    tally.add(failure)
    text = tally.format(1, {Path(nasty): nasty})
    for line in (describe(record), describe(failure), *text.split("\n")):
        assert line.isprintable()
    assert text.count("fake") == 9


def test_progress_draws_over_itself_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = Progress(stream, 50, shown=True)
    progress.update(1, 0)
    assert stream.getvalue() == ""
    now = 102.0
    progress.update(20, 1)
    progress.update(21, 1)
    assert stream.getvalue() == "\r\x1b[K20 of 50 pictures, 10.0/s, 3 s left, 1 failed"
    progress.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_elsewhere_is_silent() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 50, shown=False)
    progress.update(20, 1)
    progress.clear()
    assert stream.getvalue() == ""
