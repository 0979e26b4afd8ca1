"""The words of `unihead-predict`, and who answers by them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from service.answers.finish import DEFAULTS, Wanted
from service.commands.completion import add_completion_option
from service.commands.endpoint import add_key_option, find_key
from service.commands.files import STDIN
from service.commands.local import WRONG_USAGE, Answerer, LocalAnswerer, RunEnded
from service.engine.contract import MODEL_TASKS, ModelTask
from service.errors import MissingPackage
from service.machine import find_version, keep_freed_memory
from service.rollout.loading import load_verified
from service.settings import Settings
from service.words import make_printable

if TYPE_CHECKING:
    from service.client import Options

_REMOTE_JOBS = 8
_DESCRIPTION = """Segment, detect and classify pictures: files, or folders of JPEG, PNG and WebP pictures.

The model runs in this process, on all CPUs, unless --url names a service. There is a line of text for each picture
unless --out, --json or a file for other tools is asked for, and a table of the whole run on stderr."""
_EPILOG = """examples:
  unihead-predict photo.jpg                        # a line of text
  curl -s https://example.org/photo.jpg | unihead-predict - --json
  unihead-predict photos --recursive --out results # results/results.jsonl, a line of JSON a picture
  unihead-predict photos --out results --resume    # goes on where an earlier run has ended
  unihead-predict photos --out results --overlay   # and results/overlays: the pictures with mask and boxes drawn
  unihead-predict photos --csv found.csv --tasks detect --score-threshold 0.5
  unihead-predict val --coco found.json --coco-like val.json --tasks detect --score-threshold 0 --max-detections 1000
  unihead-predict set/images --recursive --yolo set  # set/labels, data.yaml and classes.txt
  unihead-predict photos --json --mask none | jq -r 'select(.error) | .file'
  unihead-predict photos --url http://127.0.0.1:8000 --jobs 16 --parquet found.parquet

exit codes:
  0    every picture has an answer
  1    some have none, named at the end and in the results as `error`; or results cannot be written
  2    wrong usage, or a model that cannot be used or does not serve a task of --tasks
  3    no pictures, or no service that answers
  130  stopped by Ctrl-C; files are valid, and --resume goes on

Settings of the service count here too: UNIHEAD_MODEL, UNIHEAD_THREADS, UNIHEAD_MAX_PIXELS and others."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with 2 and a sentence where it makes no sense."""
    parser = build_parser()
    options = parser.parse_args(words)
    if options.resume and options.out is None:
        parser.error("--resume goes on in a folder; name it with --out")
    if options.resume and STDIN in options.paths:
        parser.error("--resume leaves out what has an answer, by name; what comes by stdin has none")
    if options.overlay and options.out is None:
        parser.error("--overlay draws into a folder; name it with --out")
    if options.coco is None and (options.coco_dataset or options.coco_like):
        parser.error("--coco-dataset and --coco-like say how a file is written; name it with --coco")
    if options.coco_dataset and options.coco_like:
        parser.error("--coco-dataset has categories and numbers of its own; leave --coco-like out")
    if options.yolo_scores and options.yolo is None:
        parser.error("--yolo-scores adds a column to files; name their folder with --yolo")
    if options.url and options.model:
        parser.error("--url asks a service, which has its own model; leave --model out")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with a sentence; it quotes words, which may be names of files that a shell has put in."""
        super().error(make_printable(message))


def build_parser() -> argparse.ArgumentParser:
    """What the command knows."""
    parser = _Parser(
        "unihead-predict",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", metavar="PICTURE_OR_FOLDER", nargs="+", type=_path, help="files, folders of them, and - for stdin"
    )
    parser.add_argument("--recursive", action="store_true", help="look into folders in folders, too")
    where = parser.add_argument_group("who answers")
    where.add_argument(
        "--model", type=Path, metavar="FILE", help="ONNX file (default: UNIHEAD_MODEL, or the shipped one)"
    )
    where.add_argument("--url", metavar="URL", help="ask a running service, as http://127.0.0.1:8000 (extra `client`)")
    add_key_option(where)
    where.add_argument("--jobs", type=_count, metavar="N", help="pictures at once (default: CPUs; 8 with --url)")
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--tasks",
        type=_tasks,
        metavar="TASKS",
        help=f"{','.join(MODEL_TASKS)}, or some of them (default: those that the model serves)",
    )
    what.add_argument(
        "--score-threshold",
        type=_share,
        metavar="SCORE",
        help="boxes that score less are left out (default: the model's own, `score_threshold` of its contract)",
    )
    what.add_argument(
        "--max-detections", type=_count, metavar="N", help=f"boxes at most (default: {DEFAULTS.max_detections})"
    )
    what.add_argument("--top-k", type=_count, metavar="N", help=f"classes at most (default: {DEFAULTS.top_k})")
    what.add_argument(
        "--mask",
        choices=("rle", "none"),
        default="rle",
        help="COCO run lengths (the default), or no mask in the results",
    )
    out = parser.add_argument_group("where it goes")
    out.add_argument("--out", type=Path, metavar="DIR", help="folder that gets results.jsonl")
    out.add_argument("--resume", action="store_true", help="leave out pictures with an answer in DIR/results.jsonl")
    out.add_argument("--overlay", action="store_true", help="draw masks and boxes over the pictures, into DIR/overlays")
    out.add_argument("--json", action="store_true", help="JSON lines on stdout")
    out.add_argument("--csv", type=Path, metavar="FILE", help="a table: a row a picture, and one for each thing found")
    out.add_argument("--parquet", type=Path, metavar="FILE", help="the same table with types (extra `parquet`)")
    out.add_argument(
        "--coco", type=Path, metavar="FILE", help="results as COCO's tools read them: boxes, and masks as run lengths"
    )
    out.add_argument(
        "--coco-dataset", action="store_true", help="make FILE a whole data set, with categories and pictures"
    )
    out.add_argument(
        "--coco-like",
        type=Path,
        metavar="ANNOTATIONS",
        help="number pictures and categories of the results as this annotation file does, by file name and name",
    )
    out.add_argument(
        "--yolo", type=Path, metavar="DIR", help="folder that gets labels/, a text file a picture, and the names"
    )
    out.add_argument("--yolo-scores", action="store_true", help="a sixth column in labels/: the score")
    out.add_argument("--quiet", action="store_true", help="no progress and no table on stderr")
    add_completion_option(parser)
    parser.add_argument("--version", action="version", version=f"unihead-predict {find_version('unihead')}")
    return parser


def _path(text: str) -> Path:
    return STDIN if text == "-" else Path(text)


def _tasks(text: str) -> tuple[ModelTask, ...]:
    names = {name.strip() for name in text.split(",")}
    if not names <= set(MODEL_TASKS):
        raise argparse.ArgumentTypeError(f"{text!r}; known are {', '.join(MODEL_TASKS)}, separated by commas")
    return tuple(task for task in MODEL_TASKS if task in names)


def _share(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and 0 <= number <= 1):
        raise argparse.ArgumentTypeError(f"{text!r}; a score is a number from 0 to 1")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; it takes a whole number, 1 or more")
    return number


def open_answerer(options: argparse.Namespace, settings: Settings) -> tuple[Answerer, int]:
    """Load the model, or find the service.

    Returns:
        Who answers, and how many pictures at once.

    Raises:
        ContractError: the model cannot be used.
        MissingPackage: httpx is not installed.
        RunEnded: the address is none, no service answers, or its model does not serve a task that is asked for.
        TaskNotServed: the model of this process does not.
    """
    names = ("score_threshold", "max_detections", "top_k")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    wanted = Wanted(options.tasks, mask=options.mask, **given)
    if options.url is None:
        keep_freed_memory()
        engine = load_verified(settings.model, settings, sha256=settings.model_sha256)
        answerer = LocalAnswerer(engine, wanted, settings.picture_limits, drawn=options.overlay)
        return answerer, options.jobs or settings.cpu_threads
    try:
        from service.commands.remote import RemoteAnswerer  # noqa: PLC0415 - httpx is an extra
    except ModuleNotFoundError as error:
        raise MissingPackage(error.name, "client") from error
    try:
        remote = RemoteAnswerer(options.url, find_key(options), wanted, cast("Options", given), drawn=options.overlay)
    except ValueError as error:
        raise RunEnded(str(error), WRONG_USAGE) from error
    return remote, options.jobs or _REMOTE_JOBS
