"""The log: one event is one line, escaped and bounded, as JSON or text, from all that logs in this process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii as _quote
from typing import Literal, TypeAlias

from service.telemetry.log_writer import LineWriter

logger = logging.getLogger("unihead")

LogFormat: TypeAlias = Literal["auto", "json", "text"]
Fields: TypeAlias = Mapping[str, str | float | None]

# Characters; what is longer is cut.
_MAX_MESSAGE = 1000
_MAX_SENTENCE = 300
_MAX_FRAMES = 20
_MAX_CAUSES = 4
_STDERR = 2
# Nobody reads them, and asking for them takes half of the time that a record takes.
_UNREAD = ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks")


def log_request(fields: Fields) -> None:
    """Write the line of one request.

    Args:
        fields: what is known about it, in the order of the line; nothing that a caller may write freely.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    # Not logger.info: it looks for its caller, which takes as long as all the rest.
    record = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "request", None, None)
    record.fields = fields
    logger.handle(record)


@contextlib.contextmanager
def open_log(level: str, log_format: LogFormat = "auto", *, descriptor: int = _STDERR) -> Iterator[LineWriter]:
    """Write what this process logs as long as the block lasts; warnings, and threads that die, are logged too.

    Args:
        level: quietest level that is written.
        log_format: auto means text on a terminal and JSON elsewhere.
        descriptor: of the file; never closed.
    """
    as_text = log_format == "text" or (log_format == "auto" and os.isatty(descriptor))
    formatter = TextFormatter() if as_text else JsonFormatter()
    writer = LineWriter(descriptor, describe_loss=lambda lines: f"{formatter.format(_make_loss(lines))}\n")
    root = logging.getLogger()
    before = root.handlers[:], root.level, threading.excepthook, sys.unraisablehook
    flags = {name: getattr(logging, name) for name in _UNREAD if hasattr(logging, name)}
    root.handlers[:], threading.excepthook, sys.unraisablehook = [_Handler(writer, formatter)], _log_thread, _log_deaf
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name in flags:
        setattr(logging, name, False)
    try:
        yield writer
    finally:
        for name, value in flags.items():
            setattr(logging, name, value)
        logging.captureWarnings(capture=False)
        root.handlers[:], _, threading.excepthook, sys.unraisablehook = before
        root.setLevel(before[1])
        writer.stop()


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.formatter: logging.Formatter = formatter

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(f"{self.formatter.format(record)}\n")
        except Exception:  # noqa: BLE001 - a message that cannot be put into words must not fail who says it
            self._writer.drop(1)


class JsonFormatter(logging.Formatter):
    """One JSON object: time (RFC 3339, UTC), level, logger, message, then the record's fields and exception."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; pure ASCII without control characters."""
        fields: Fields = getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            fields = {**fields, "exception": describe_exception(record.exc_info[1])}
        # By hand: json.dumps of a dict takes twice as long, for every request.
        line = (
            f'{{"time":"{self._clock.write(record.created)}","level":"{record.levelname.lower()}",'
            f'"logger":{_quote(record.name)},"message":{_quote(_cut(record.getMessage(), _MAX_MESSAGE))}'
        )
        for name, value in fields.items():
            line += f',"{name}":{_write_value(value)}'
        return f"{line}}}".replace("\x7f", "\\u007f")


def _write_value(value: str | float | None) -> str:
    if isinstance(value, str):
        return _quote(value)
    return "null" if value is None else repr(value)


class TextFormatter(logging.Formatter):
    """One line for people, and a traceback below it, set in so that nothing in it looks like a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; control characters are escaped."""
        fields: Fields = getattr(record, "fields", {})
        words = [
            self._clock.write(record.created),
            record.levelname,
            record.name,
            _cut(record.getMessage(), _MAX_MESSAGE),
            *(f"{name}={value}" for name, value in fields.items()),
        ]
        lines = [" ".join(words)]
        if record.exc_info and record.exc_info[1] is not None:
            lines += [f"    {line}" for line in describe_exception(record.exc_info[1]).split("\n")]
        return "\n".join(_escape(line) for line in lines)


class _Clock:
    """Writes times; the part that changes once a second is kept."""

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def write(self, seconds: float) -> str:
        second = int(seconds)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((seconds - second) * 1000):03d}Z"


def describe_exception(error: BaseException) -> str:
    """Write a traceback and those that led to it, the last one at the end; without values, and of bounded length."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _MAX_CAUSES:
        frames = "".join(traceback.format_tb(cause.__traceback__, -_MAX_FRAMES))
        parts.insert(0, f"{frames}{type(cause).__qualname__}: {_cut(_say(cause), _MAX_SENTENCE)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nled to\n".join(parts)


def _say(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - errors of others may fail at this too
        return f"(its message raises {type(failure).__qualname__})"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _make_loss(lines: int) -> logging.LogRecord:
    message = f"{lines} lines of this log could not be written, or not soon enough"
    return logging.LogRecord(logger.name, logging.WARNING, __file__, 0, message, None, None)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread is not None else "unknown"
        logger.error("the thread %s died", name, exc_info=args.exc_value)


def _log_deaf(args: sys.UnraisableHookArgs) -> None:
    logger.error("nobody could be told: %s", args.err_msg or "an exception in a finalizer", exc_info=args.exc_value)
