"""`unihead-data`: make the mini sets out of the official releases, and find what is wrong with data."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.data.doctor.examine import examine
from training.data.doctor.layouts import WANTED, LayoutError
from training.data.doctor.report import format_json, format_text
from training.data.prepare.command import add_prepare_parser

if TYPE_CHECKING:
    from argparse import _SubParsersAction

EXIT_ERRORS = 1
EXIT_USAGE = 2  # as argparse has it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    namespace = _build_parser().parse_args(arguments)
    sys.exit(namespace.run(namespace))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unihead-data", description=__doc__)
    with contextlib.suppress(ModuleNotFoundError):  # the extra `completion`
        import shtab  # noqa: PLC0415 - optional

        shtab.add_argument_to(parser, "--print-completion", help="print a script that completes these words in a shell")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add_prepare_parser(subparsers)
    _add_doctor_parser(subparsers)
    return parser


def _add_doctor_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = subparsers.add_parser(
        "doctor",
        help="find what ruins a training run",
        description="Examine data sets; exits 1 if there are errors, 0 if there are none.",
        epilog=f"DIR, or the folders in it, may each be {WANTED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("folder", metavar="DIR", type=Path, help="a data set, or a folder of data sets")
    doctor.add_argument("--json", action="store_true", help="print one JSON document with every case")
    doctor.add_argument("--html", metavar="OUT", type=Path, help="write a page with tables, histograms and samples")
    doctor.set_defaults(run=_run_doctor)


def _run_doctor(namespace: argparse.Namespace) -> int:
    try:
        examination = examine(namespace.folder)
        if namespace.html is not None:
            # The page is drawn by code that the report does not need.
            from training.data.doctor.html.page import write_page  # noqa: PLC0415 - drawing takes most of a second

            write_page(examination, namespace.html)
    except (LayoutError, OSError) as error:
        print(f"unihead-data: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(format_json(examination) if namespace.json else format_text(examination))
    return EXIT_ERRORS if examination.has_errors else 0


if __name__ == "__main__":
    main()
