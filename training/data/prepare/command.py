"""`unihead-data prepare`: make the three sets out of the official releases."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from training.config import Task
from training.data.prepare.coco_official import ALL_CLASSES, CocoSet
from training.data.prepare.download import download_release
from training.data.prepare.imagenette import ImagenetteSet
from training.data.prepare.official import SPLITS, OfficialSet
from training.data.prepare.progress import ProgressBar
from training.data.prepare.releases import RELEASES, PrepareError, describe_layout
from training.data.prepare.sampling import Quota
from training.data.prepare.selection import Selection, select_pictures
from training.data.prepare.sources import Files, open_release
from training.data.prepare.voc import VocSet
from training.data.prepare.writer import WriteFile, check_out, write_sets
from training.data.taxonomy import IMAGENETTE

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names it so

_DEFAULT_TOTALS = {"train": 240, "val": 60}
_DEFAULT_DETECTION_CLASSES = "10"


def add_prepare_parser(subparsers: Subparsers) -> None:
    """Add `prepare`; its namespace has `run`, which takes the namespace and returns the exit code."""
    parser = subparsers.add_parser(
        "prepare",
        help="make the three sets out of the official releases",
        description="Draw pictures from the official releases and write them as the sets that training reads.",
        epilog=f"{'; '.join(map(describe_layout, RELEASES.values()))}.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="releases that you have, as archives or unpacked"
    )
    source.add_argument("--download", action="store_true", help="get the archives that --cache lacks (COCO: 19 GB)")
    parser.add_argument("--cache", type=Path, default=_default_cache(), help="of --download (default: %(default)s)")
    parser.add_argument(
        "--mirror", metavar="URL", type=_http_url, help="server with the archives by their official names"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must not exist, or be empty")
    parser.add_argument("--tasks", type=_tasks, default=tuple(Task), metavar="NAMES", help="with commas (default: all)")
    for split, total in _DEFAULT_TOTALS.items():
        parser.add_argument(f"--{split}-per-class", type=_positive, metavar="N", help=f"{split} pictures of each class")
        parser.add_argument(
            f"--{split}-total",
            type=_positive,
            metavar="N",
            help=f"{split} pictures of each task (default: {total}, if there is no --{split}-per-class)",
        )
    parser.add_argument("--all", action="store_true", dest="keep_all", help="every picture, in place of a drawing")
    parser.add_argument(
        "--detection-classes",
        metavar="WHICH",
        help=f"names with commas, {ALL_CLASSES}, or how many of the most frequent "
        f"(default: {_DEFAULT_DETECTION_CLASSES}; with --all {ALL_CLASSES})",
    )
    parser.add_argument("--max-side", type=_positive, metavar="PX", help="make larger pictures smaller, as JPEG")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pictures (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the sets and print what is in them; returns the exit code, 1 after one sentence on stderr."""
    try:
        check_out(options.out)  # before hours of download
        source = options.source or _download(options)
        files = {task: open_release(source, RELEASES[task]) for task in options.tasks}
        selection = prepare(options, files)
    except (PrepareError, OSError) as error:
        sys.stderr.write(f"unihead-data prepare: {error}\n")
        return 1
    leftovers = sorted(options.out.parent.glob(f".{options.out.name}.*.partial"))
    for path in leftovers:
        sys.stdout.write(f"note: {path} is of a run that was killed or still runs; delete it if none runs\n")
    for notice in selection.notices:
        sys.stdout.write(f"note: {notice}\n")
    sys.stdout.write(f"{format_summary(selection)}\n{options.out} is ready\n")
    return 0


def prepare(options: argparse.Namespace, files: Mapping[Task, Files], write: WriteFile = Path.write_bytes) -> Selection:
    """Draw the pictures and write the sets to `options.out`.

    Args:
        options: of the command.
        files: the releases, by task.
        write: puts bytes into a file.

    Raises:
        PrepareError: a release is not what it should be, or `out` is there already.
        OSError: the disk is full, or not ours to write to.
    """
    detection_classes = options.detection_classes or (ALL_CLASSES if options.keep_all else _DEFAULT_DETECTION_CLASSES)
    builders: Mapping[Task, Callable[[Files], OfficialSet]] = {
        Task.SEGMENTATION: VocSet,
        Task.DETECTION: lambda release: CocoSet(release, detection_classes),
        Task.CLASSIFICATION: ImagenetteSet,
    }
    sets = [builders[task](files[task]) for task in options.tasks]
    quotas = {split: _make_quota(options, split) for split in SPLITS}
    selection = select_pictures(sets, quotas, options.seed, keep_all=options.keep_all)
    arguments: dict[str, Any] = {
        "seed": options.seed,
        "all": options.keep_all,
        "detection_classes": detection_classes,
        "max_side": options.max_side,
        "tasks": options.tasks,
    }
    if not options.keep_all:
        for split, quota in quotas.items():
            arguments |= {f"{split}_per_class": quota.per_class, f"{split}_total": quota.total}
    write_sets(options.out, sets, selection, arguments, max_side=options.max_side, write=write)
    return selection


def format_summary(selection: Selection) -> str:
    """Pictures of each class and split, a table a task; a picture counts for every class that it shows."""
    tables = []
    for task in dict.fromkeys(task for task, _ in selection.pictures):
        counts = [selection.counts[task, split] for split in SPLITS]
        rows: list[Sequence[object]] = [
            (IMAGENETTE.get(label, label), *(count[label] for count in counts)) for label in counts[0]
        ]
        rows.append(("pictures", *(len(selection.pictures[task, split]) for split in SPLITS)))
        width = max(len(task), *(len(str(row[0])) for row in rows))
        tables.append("\n".join(f"{row[0]:<{width}} {row[1]:>7} {row[2]:>7}" for row in [(task, *SPLITS), *rows]))
    return "\n\n".join(tables)


def _download(options: argparse.Namespace) -> Path:
    cache: Path = options.cache
    for task in options.tasks:
        download_release(RELEASES[task], cache, ProgressBar(sys.stderr), options.mirror)
    return cache


def _make_quota(options: argparse.Namespace, split: str) -> Quota:
    per_class: int | None = getattr(options, f"{split}_per_class")
    total: int | None = getattr(options, f"{split}_total")
    return Quota(per_class, _DEFAULT_TOTALS[split] if per_class is None and total is None else total)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unihead" / "releases"


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _tasks(text: str) -> tuple[Task, ...]:
    names = {name.strip() for name in text.split(",")}
    if strange := sorted(names - set(Task)):
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is no task; wanted of {', '.join(Task)}")
    return tuple(task for task in Task if task in names)


def _http_url(text: str) -> str:
    if urlsplit(text).scheme not in {"http", "https"}:
        raise argparse.ArgumentTypeError(f"{text!r} must look like https://mirror.example/releases")
    return text
