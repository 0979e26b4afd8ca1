"""docs/reference/commands.md: every command that the package installs, with its sub-commands and options."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NoReturn, get_args, get_type_hints
from unittest import mock

import typer
from typer.models import ArgumentInfo, CommandInfo

from docs.tools.reference_tables import ROOT, hide_place, make_table, show_default

_HEAD = ("option", "default", "what it is")


class _CaughtError(Exception):
    """The parser that a command was about to use."""

    def __init__(self, parser: argparse.ArgumentParser | typer.Typer) -> None:
        super().__init__()
        self.parser = parser


def describe_commands() -> str:
    """Every entry of `[project.scripts]`; a command is asked for its parser, so that none is forgotten."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    parts = ["# Commands", "`--help` of each says the same."]
    for program, place in scripts.items():
        for name, text in _describe_program(program, place):
            parts += [f"## {name}", text]
    return "\n\n".join(parts)


def _describe_program(program: str, place: str) -> Iterator[tuple[str, str]]:
    module_name, function_name = place.split(":")
    module = importlib.import_module(module_name)
    main = getattr(module, function_name)
    for words in ((), *((name,) for name in getattr(module, "COMMANDS", ()))):
        yield from _describe_parser(" ".join((program, *words)), find_parser(program, main, words))


def find_parser(program: str, main: Callable[[], None], words: tuple[str, ...]) -> Any:  # noqa: ANN401 - of any library
    """The parser that a command builds when it is called with these words; nothing else of it runs."""

    def catch(parser: argparse.ArgumentParser | typer.Typer, *_: object, **__: object) -> NoReturn:
        raise _CaughtError(parser)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", catch),
        mock.patch.object(typer.Typer, "__call__", catch),
        mock.patch.object(sys, "argv", [program, *words]),
    ):
        try:
            main()
        except _CaughtError as caught:
            return caught.parser
    raise RuntimeError(f"{program} {' '.join(words)} asks no parser that is known here")


def _describe_parser(name: str, parser: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - of any library
    if isinstance(parser, argparse.ArgumentParser):
        yield from _describe_argparse(name, parser)
    else:
        yield from _describe_typer(name, parser)


def _describe_argparse(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 - argparse has no public way to list what a parser knows
    rows = [_argparse_row(action, parser) for action in parser._actions if action not in groups]  # noqa: SLF001 - argparse has no public way to list what a parser knows
    text = inspect.cleandoc(parser.description or "")
    if name == "unihead-serve":  # dozens, which have a page of their own
        yield name, f"{text}\n\nIts flags are the [settings](settings.md)."
    else:
        yield name, _join(text, [row for row in rows if row is not None])
    for group in groups:
        for word, inner in group.choices.items():
            yield from _describe_argparse(f"{name} {word}", inner)


def _argparse_row(action: argparse.Action, parser: argparse.ArgumentParser) -> tuple[str, str, str] | None:
    if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:  # noqa: SLF001 - argparse has no public way to list what a parser knows
        return None
    if action.default is None or action.default == argparse.SUPPRESS or isinstance(action.default, bool):
        default = "required" if action.required and action.default is None else ""
    else:
        default = show_default(action.default)
    metavar = action.metavar if isinstance(action.metavar, str) else (action.dest or "").upper()
    value = "" if action.nargs == 0 else ",".join(map(str, action.choices)) if action.choices else metavar
    words = ", ".join(action.option_strings)
    text = (action.help or "").replace(" (default: %(default)s)", "") % {**vars(action), "prog": parser.prog}
    return f"`{f'{words} {value}'.strip()}`", default, hide_place(text)


def _describe_typer(name: str, app: typer.Typer) -> Iterator[tuple[str, str]]:
    """Out of the functions that the commands were made of: typer's own parsers change from release to release."""
    commands = [(one, one.callback) for one in app.registered_commands if one.callback is not None]
    yield name, f"{app.info.help or ''}\n\nIts commands: {', '.join(f'`{_word_of(*one)}`' for one in commands)}."
    for one, callback in commands:
        hints = get_type_hints(callback, include_extras=True)
        parameters = inspect.signature(callback).parameters.values()
        rows = [_typer_row(parameter, hints[parameter.name]) for parameter in parameters]
        yield f"{name} {_word_of(one, callback)}", _join(inspect.getdoc(callback) or "", rows)


def _word_of(command: CommandInfo, callback: Callable[..., Any]) -> str:
    return command.name or callback.__name__.replace("_", "-")


def _typer_row(parameter: inspect.Parameter, hint: Any) -> tuple[str, str, str]:  # noqa: ANN401 - any annotation
    kind, info = get_args(hint)[:2]
    kinds = [one for one in get_args(kind) or (kind,) if one is not type(None)]
    inner = get_args(kinds[0])[0] if get_args(kinds[0]) else kinds[0]
    choices = ",".join(str(one.value) for one in inner) if inspect.isclass(inner) and issubclass(inner, Enum) else ""
    value = info.metavar or choices or parameter.name.upper()
    word = f"--{parameter.name.replace('_', '-')}"
    # Where an option is annotated, typer keeps its first own name as `default`.
    own = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str) and one.startswith("-")]
    if isinstance(info, ArgumentInfo):
        shown = value
    elif inner is bool:
        shown = ", ".join(own or (word, f"--no-{word[2:]}"))
    else:
        shown = f"{', '.join(own or (word,))} {value}"
    default = "required" if parameter.default is parameter.empty else show_default(parameter.default)
    variable = f" Variable `{info.envvar}`." if info.envvar else ""
    return f"`{shown}`", "" if default in {"none", "`false`"} else default, f"{info.help or ''}{variable}"


def _join(text: str, rows: list[tuple[str, str, str]]) -> str:
    return "\n\n".join(part for part in (text.strip(), make_table(_HEAD, rows) if rows else "") if part)
