from __future__ import annotations

import gc
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from service.telemetry.logs import Fields, JsonFormatter, TextFormatter, describe_exception, log_request, open_log

logger = logging.getLogger("unihead")
HOSTILE = 'a\r\n{"level":"info"}\x1b[2J\x00\x7f\x85\u2028\ud800"\\é'


def read_log(path: Path, say: Callable[[], object], log_format: Literal["json", "text"] = "json") -> str:
    with path.open("wb") as file, open_log("info", log_format, descriptor=file.fileno()) as writer:
        say()
        assert writer.dropped == 0
    return path.read_text("utf-8")


def read_one(path: Path, say: Callable[[], object]) -> dict[str, Any]:
    text = read_log(path, say)
    assert text.count("\n") == 1
    return dict(json.loads(text))


def fail() -> None:
    try:
        {}["gone"]  # type: ignore[index]  # on purpose
    except KeyError as error:
        raise RuntimeError("no luck") from error


def test_an_event_is_one_object_with_time_level_logger_and_message(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    found = read_one(tmp_path / "log", lambda: logger.warning("the %s is on fire", "house"))
    assert list(found) == ["time", "level", "logger", "message"]
    assert (found["level"], found["logger"], found["message"]) == ("warning", "unihead", "the house is on fire")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])
    assert abs(datetime.fromisoformat(found["time"]) - before) < timedelta(seconds=10)


def test_a_request_is_one_line_in_the_order_of_its_fields(tmp_path: Path) -> None:
    fields: Fields = {
        "request_id": "a",
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "ms": 12.345,
        "cache": "miss",
    }
    found = read_one(tmp_path / "log", lambda: log_request(fields))
    assert list(found.items())[3:] == [("message", "request"), *fields.items()]


def test_requests_are_not_logged_below_the_level(tmp_path: Path) -> None:
    def say() -> None:
        logging.getLogger().setLevel(logging.WARNING)
        log_request({"status": 200})

    assert read_log(tmp_path / "log", say) == ""


def test_text_is_for_people(tmp_path: Path) -> None:
    text = read_log(tmp_path / "log", lambda: log_request({"method": "GET", "status": None}), "text")
    assert text.split(" ", 1)[1] == "INFO unihead request method=GET status=None\n"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize("size", [1, 10**6])
def test_whatever_is_said_stays_one_line_of_plain_characters(formatter: logging.Formatter, size: int) -> None:
    record = logging.LogRecord("unihead", logging.INFO, "", 0, "it says %s", (HOSTILE * size,), None)
    record.fields = {"name": HOSTILE}
    line = formatter.format(record)
    line.encode()  # no half of a surrogate pair
    assert "\n" not in line
    assert all(character.isprintable() for character in line)
    assert len(line) < 10_000
    if isinstance(formatter, JsonFormatter):
        assert line.isascii()
        assert json.loads(line)["name"] == HOSTILE


def test_an_exception_is_a_field_with_the_last_frames_and_what_led_to_it(tmp_path: Path) -> None:
    def say() -> None:
        try:
            fail()
        except RuntimeError:
            logger.exception("it broke", extra={"fields": {"request_id": "a"}})

    found = read_one(tmp_path / "log", say)
    assert (found["level"], found["message"], found["request_id"]) == ("error", "it broke", "a")
    cause, effect = found["exception"].split("\nled to\n")
    assert cause.endswith("KeyError: 'gone'")
    assert effect.endswith("RuntimeError: no luck")
    assert "in fail\n" in effect


def test_a_traceback_in_text_looks_like_no_line_of_its_own(tmp_path: Path) -> None:
    def say() -> None:
        try:
            raise ValueError("2026-01-01T00:00:00.000Z INFO unihead forged\n2026-01-01T00:00:00.000Z INFO")
        except ValueError:
            logger.exception("it broke")

    first, *rest = read_log(tmp_path / "log", say, "text").splitlines()
    assert first.endswith("ERROR unihead it broke")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_an_exception_is_bounded_and_holds_few_bytes_of_what_it_is_about() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise OSError

    def sink(depth: int) -> None:
        if depth:
            sink(depth - 1)
        try:
            raise Wordless
        except Wordless:
            raise ValueError(b"\xff\xd8" * 10**6) from None

    with pytest.raises(ValueError, match="xff") as caught:
        sink(200)
    found = describe_exception(caught.value)
    assert len(found) < 10_000
    assert found.count("xff") < 100
    assert describe_exception(Wordless()) == (
        "test_an_exception_is_bounded_and_holds_few_bytes_of_what_it_is_about.<locals>.Wordless: "
        "(its message raises OSError)"
    )


def test_warnings_dead_threads_and_finalizers_are_logged(tmp_path: Path) -> None:
    class Clingy:
        def __del__(self) -> None:
            raise RuntimeError("let me stay")

    def say() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=fail, name="tired")
        thread.start()
        thread.join()
        threading.Thread(target=sys.exit).start()
        Clingy()
        gc.collect()

    warned, died, stayed = (json.loads(line) for line in read_log(tmp_path / "log", say).splitlines())
    assert "DeprecationWarning: old" in warned["message"]
    assert (died["message"], died["exception"][-21:]) == ("the thread tired died", "RuntimeError: no luck")
    assert stayed["exception"].endswith("RuntimeError: let me stay")


def test_a_message_that_cannot_be_written_is_counted_and_raises_nothing(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file, open_log("info", "json", descriptor=file.fileno()) as writer:
        logger.info("%d", "no number")
        assert writer.dropped == 1
    assert "1 lines of this log could not be written" in (tmp_path / "log").read_text()


def test_a_terminal_gets_text_and_everything_else_json(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    with open_log("info", descriptor=follower):
        logger.info("hello")
    assert os.read(leader, 1000).endswith(b"INFO unihead hello\r\n")
    os.close(leader)
    os.close(follower)
    with (tmp_path / "log").open("wb") as file, open_log("info", descriptor=file.fileno()):
        logger.info("hello")
    assert json.loads((tmp_path / "log").read_text())["message"] == "hello"


def test_afterwards_all_is_as_it_was(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:], threading.excepthook, sys.unraisablehook, logging.logThreads
    read_log(tmp_path / "log", lambda: None)
    assert (logging.getLogger().handlers[:], threading.excepthook, sys.unraisablehook, logging.logThreads) == before
