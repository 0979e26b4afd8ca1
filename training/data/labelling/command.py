"""`unihead-data label`: pictures without labels in, a source that training reads out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from training.data.labelling.faults import LabellingError
from training.data.labelling.rules import Rules
from training.data.prepare.progress import ProgressBar
from training.options.base import describe_faults

if TYPE_CHECKING:
    from training.data.prepare.command import Subparsers

_LEFT_OUT, _USAGE, _INTERRUPTED = 1, 2, 130
_PROG: Final = "unihead-data label"


def add_label_parser(subparsers: Subparsers) -> None:
    """Add `label`; its namespace has `run`, which takes the namespace and returns the exit code."""
    parser = subparsers.add_parser(
        "label",
        help="label pictures by networks of any make",
        description="Ask ONNX networks that a few lines of TOML describe about a folder of pictures, and write what "
        "they say as a source that training reads. Stopped at any moment, the same command goes on. Exits 1 if "
        "pictures were left out because they cannot be read.",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        dest="teachers",
        help="ONNX file with its TOML beside it, or the TOML; several of one task are fused",
    )
    parser.add_argument("--pictures", required=True, type=Path, metavar="DIR", help="looked into at any depth")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new, or what an earlier run wrote")
    parser.add_argument("--weights", type=_weights, metavar="NUMBERS", help="of the teachers, with commas (default: 1)")
    parser.add_argument(
        "--image-labels", type=Path, metavar="FILE", help='JSON: {"a.jpg": {"present": ["dog"], "absent": ["cat"]}}'
    )
    for name, field in Rules.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            metavar="SHARE",
            default=field.default,
            help=f"{field.description} (default: %(default)s)",
        )
    parser.add_argument(
        "--jobs", type=_jobs, metavar="N", help="pictures at once (default: one a core); the labels do not depend on it"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Label and print what came of it; returns the exit code."""
    # The other commands of `unihead-data` need no ONNX Runtime.
    from training.data.labelling.labelling import label  # noqa: PLC0415 - loading it takes a third of a second

    weights = options.weights or (1.0,) * len(options.teachers)
    bar = ProgressBar(sys.stderr, unit="pictures", size=1)
    try:
        if len(weights) != len(options.teachers):
            raise LabellingError(f"--weights has {len(weights)} numbers for {len(options.teachers)} teachers")
        labelled = label(
            options.pictures,
            options.out,
            list(zip(options.teachers, weights, strict=True)),
            Rules(**{name: getattr(options, name) for name in Rules.model_fields}),
            image_labels=options.image_labels,
            jobs=options.jobs or len(os.sched_getaffinity(0)),
            progress=lambda done, total: bar("labelled", done, total),
        )
    except ValidationError as error:
        return _complain(f"{describe_faults(error)}", _USAGE)
    except (LabellingError, OSError) as error:
        return _complain(str(error), _USAGE)
    except KeyboardInterrupt:
        return _complain("stopped; the same command goes on where it was", _INTERRUPTED)
    for line in (*labelled.lines, *(f"note: {note}" for note in labelled.notes)):
        sys.stdout.write(f"{line}\n")
    for picture, reason in labelled.refused.items():
        sys.stderr.write(f"left out: {options.pictures / picture}: {reason}\n")
    data = options.out / "data.toml"
    sys.stdout.write(f"{data} is ready: `unihead-data show {data}`\n")
    return _LEFT_OUT if labelled.refused else 0


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"{_PROG}: {sentence}\n")
    return code


def _weights(text: str) -> tuple[float, ...]:
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers above 0, such as 1,0.7")
    return weights


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
