"""`unihead-predict`: answers about files and folders, from the model in this process or from a service."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from service.commands.exports import plan_exports, wants_exports
from service.commands.files import (
    STDIN,
    draw_overlay,
    find_overlay,
    find_pictures,
    name_picture,
    read_picture,
)
from service.commands.local import NO_ANSWERS, WRONG_USAGE, Answerer, PictureError, RunEnded
from service.commands.options import open_answerer, parse
from service.commands.results import (
    Record,
    ResultFile,
    ResultFileError,
    format_record,
    keep_answers,
)
from service.commands.summary import Progress, Tally, describe
from service.errors import RequestError, UniheadError
from service.pictures.limits import PictureLimits
from service.settings import read_settings
from service.words import make_printable

_FAILED, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:  # whoever read has enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    except RunEnded as end:
        code = _complain(end, end.code)
    except UniheadError as error:
        code = _complain(error, WRONG_USAGE)
    except OSError as error:  # results that cannot be written
        code = _complain(error, _FAILED)
    sys.exit(code)


def _complain(error: Exception, code: int) -> int:
    print(make_printable(f"unihead-predict: {error}"), file=sys.stderr)
    return code


def _run(options: argparse.Namespace) -> int:
    found = find_pictures(options.paths, recursive=options.recursive, leave_out=options.out)
    if not any(picture == STDIN or os.path.exists(picture) for picture in found.pictures):  # noqa: PTH110 - never raises
        others = [f"; left out {path}: {why}" for path, why in found.left_out.items()]
        raise RunEnded(f"no pictures in {', '.join(map(name_picture, options.paths))}{''.join(others[:5])}", NO_ANSWERS)
    tally, settings = Tally(), read_settings(model=options.model)
    with contextlib.ExitStack() as stack:
        answerer, jobs = open_answerer(options, settings)
        stack.callback(answerer.close)
        path = _choose_path(options, stack)
        done = _go_on(path, answerer.version, tally) if path is not None and path.exists() else set()
        export = plan_exports(options, {*done, *map(name_picture, found.pictures)}, answerer.classes)
        results = stack.enter_context(ResultFile(path)) if path is not None else None
        todo = [picture for picture in found.pictures if name_picture(picture) not in done]
        overlays = options.out / "overlays" if options.overlay else None
        started = time.perf_counter()
        answer = partial(_answer, answerer, overlays, settings.picture_limits)
        code = _answer_all(todo, answer, jobs, results, tally, options)
        seconds = time.perf_counter() - started
        told = export(path) if path is not None else []
    if not options.quiet:
        sys.stdout.flush()
        print("\n".join([tally.format(seconds, found.left_out), *map(make_printable, told)]), file=sys.stderr)
    return code


def _choose_path(options: argparse.Namespace, stack: contextlib.ExitStack) -> Path | None:
    """Where records go: a file that stays, one that tables are made of and that goes, or nowhere."""
    if options.out is not None:
        path: Path = options.out / "results.jsonl"
        if path.exists() and not options.resume:
            raise RunEnded(f"{path} is there already; --resume goes on with it, or name another folder", WRONG_USAGE)
        options.out.mkdir(parents=True, exist_ok=True)
        return path
    if wants_exports(options):
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unihead-"))) / "results.jsonl"
    return None


def _go_on(path: Path, version: str, tally: Tally) -> set[str]:
    """Keep what an earlier run has answered; returns the names of its pictures."""
    done: set[str] = set()

    def keep(record: Record) -> None:
        other = record.get("model", {}).get("version")
        if other != version:
            raise ResultFileError(f"{path} has answers of the model {other}, this one is {version}; name another --out")
        done.add(record["file"])
        tally.add(record, earlier=True)

    keep_answers(path, keep)
    return done


def _answer_all(
    pictures: Sequence[Path],
    answer: Callable[[Path], Record],
    jobs: int,
    results: ResultFile | None,
    tally: Tally,
    options: argparse.Namespace,
) -> int:
    """Answer, write and count; returns the exit code. What is written stays valid however this ends."""
    lines = options.json or (results is None)
    shown = sys.stderr.isatty() and not options.quiet and not (lines and sys.stdout.isatty())
    progress = Progress(sys.stderr, len(pictures), shown=shown)
    try:
        with contextlib.closing(_answer_in_order(pictures, answer, jobs)) as records:
            for number, record in enumerate(records, 1):
                if results is not None:
                    results.append(record)
                tally.add(record)
                if lines:
                    sys.stdout.write(f"{format_record(record) if options.json else describe(record)}\n")
                progress.update(number, len(tally.failed))
    except KeyboardInterrupt:
        progress.clear()
        return _INTERRUPTED
    except RunEnded as end:
        progress.clear()
        return _complain(end, end.code)
    progress.clear()
    return _FAILED if tally.failed else 0


def _answer_in_order(
    pictures: Sequence[Path], answer: Callable[[Path], Record], jobs: int
) -> Generator[Record, None, None]:
    """Work on `jobs` pictures at once, a little ahead of those that are given out in their order."""
    waiting: deque[Future[Record]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="picture")
    try:
        for picture in pictures:
            waiting.append(pool.submit(answer, picture))
            if len(waiting) > 4 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(answerer: Answerer, overlays: Path | None, limits: PictureLimits, picture: Path) -> Record:
    """In a worker thread: take one file to its record; why there is no answer about it is one too."""
    name = name_picture(picture)
    try:
        body = read_picture(picture)
        result = answerer.ask(body)
        if overlays is not None:
            draw_overlay(body, result, find_overlay(overlays, picture), limits)
    except (PictureError, RequestError) as error:  # RequestError: the service takes larger pictures than are drawn here
        return {"file": name, "error": {"code": error.code, "detail": str(error)}}
    return {"file": name, **result.parts}
