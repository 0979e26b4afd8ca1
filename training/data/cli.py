"""`unihead-data`: make sets out of the official releases, label pictures, show what data is, find what is wrong."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import DEFAULT_PRESET, ConfigError, load_config
from training.data.doctor.examine import examine
from training.data.doctor.layouts import LayoutError
from training.data.doctor.report import format_json, format_text
from training.data.doctor.verdicts import CACHE_NAME
from training.data.labelling.command import add_label_parser
from training.data.prepare.command import add_prepare_parser
from training.data.sets.guess import WANTED
from training.data.sets.showing import format_understood
from training.data.sources import describe_data
from training.files import find_cache_folder

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
    add_label_parser(subparsers)
    _add_show_parser(subparsers)
    _add_doctor_parser(subparsers)
    return parser


def _add_show_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    show = subparsers.add_parser(
        "show",
        help="print what is understood of data, and the data file that says it",
        description="Print the sources, splits, classes and counts of data, and the data file that says so; exits "
        "1 if it cannot be trained on as it is.",
        epilog=f"DATA is a data file, `large` (which ships), or a folder: {WANTED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_arguments(show)
    show.set_defaults(run=_run_show)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="a data file, a data set, or a folder of data sets")
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="what the paths of a data file count from; else its own folder, then UNIHEAD_DATA",
    )


def _run_show(namespace: argparse.Namespace) -> int:
    try:
        understood = describe_data(namespace.data, root=namespace.root)
    except OSError as error:
        print(f"unihead-data: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(format_understood(understood))
    return EXIT_ERRORS if understood.problems else 0


def _add_doctor_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = subparsers.add_parser(
        "doctor",
        help="find what ruins a training run",
        description="Examine data sets; exits 1 if there are errors, 0 if there are none. What training repairs by "
        "itself is a warning.",
        epilog=f"DATA is a data file, `large` (which ships), or a folder: {WANTED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_arguments(doctor)
    doctor.add_argument("--strict", action="store_true", help="exit 1 on warnings too")
    doctor.add_argument("--json", action="store_true", help="print one JSON document with every case")
    doctor.add_argument(
        "--preset",
        metavar="NAME|FILE",
        default=DEFAULT_PRESET,
        help="whose input size and grids objects are counted on (default: %(default)s)",
    )
    doctor.add_argument(
        "--no-cache",
        action="store_true",
        help="look at all files again, though they have not changed since",
    )
    doctor.add_argument("--html", metavar="OUT", type=Path, help="write a page with tables, histograms and samples")
    doctor.set_defaults(run=_run_doctor)


def _run_doctor(namespace: argparse.Namespace) -> int:
    try:
        cache = None if namespace.no_cache else find_cache_folder(CACHE_NAME)
        config = load_config(namespace.preset)
        examination = examine(namespace.data, namespace.root, cache=cache, config=config)
        if namespace.html is not None:
            # The page is drawn by code that the report does not need.
            from training.data.doctor.html.page import write_page  # noqa: PLC0415 - drawing takes most of a second

            write_page(examination, namespace.html)
    except (ConfigError, LayoutError, OSError) as error:
        print(f"unihead-data: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(format_json(examination) if namespace.json else format_text(examination))
    is_ill = examination.has_errors or (namespace.strict and examination.has_warnings)
    return EXIT_ERRORS if is_ill else 0


if __name__ == "__main__":
    main()
