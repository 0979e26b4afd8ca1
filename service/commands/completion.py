"""Completion of a command's words in bash, zsh and fish, written by shtab where it is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from service.errors import MissingPackage
from service.settings import Settings

OPTION = "--print-completion"
SHELLS = ("bash", "zsh", "fish")


def add_completion_option(parser: argparse.ArgumentParser) -> None:
    """Let a command print a script that completes its words, and end."""
    text = "print a script that completes these words in a shell (extra `completion`)"
    parser.add_argument(OPTION, action=_PrintCompletion, choices=SHELLS, help=text)


class _PrintCompletion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's
        values: str | Sequence[object] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse's
    ) -> None:
        """Print and exit: nothing else on the command line counts."""
        try:
            import shtab  # noqa: PLC0415 - optional
        except ModuleNotFoundError:
            parser.exit(2, f"{parser.prog}: {MissingPackage('shtab', 'completion')}\n")
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
            if action.type is Path or action.metavar in {"FILE", "PICTURE_OR_FOLDER"}:
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]  # shtab's
        sys.stdout.write(f"{shtab.complete(parser, shell=str(values))}\n")
        parser.exit()


def complete_serve(words: Sequence[str], commands: Iterable[str]) -> None:
    """Print the script for `unihead-serve`, whose options are the settings, and exit.

    Args:
        words: of the command line.
        commands: what may stand in the place of options.
    """
    parser = argparse.ArgumentParser("unihead-serve")
    add_completion_option(parser)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("command", nargs="?", choices=list(commands))
    for name, setting in Settings.model_fields.items():
        kinds = (setting.annotation, *get_args(setting.annotation))
        flag, help_ = f"--{name.replace('_', '-')}", (setting.description or "").replace("%", "%%")
        if bool in kinds:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_)
        else:
            choices = [kind for kind in kinds if isinstance(kind, str)] or None
            parser.add_argument(flag, type=Path if Path in kinds else str, choices=choices, help=help_)
    parser.parse_args(words)
