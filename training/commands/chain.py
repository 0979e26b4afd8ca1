"""`unihead-train chain`: a recipe that takes longer than one run may, as a list of segments.

Each segment is a run with an optimiser and a warm-up of its own, from the weights of the segment before; these restarts
are part of the recipe. What a finished segment leaves is one small file of weights, so that the next can be trained on
another day and another machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Self

import typer
from pydantic import Field, ValidationError, model_validator
from rich.table import Table

from training.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from training.commands.options import RootOption
from training.config import ConfigError
from training.console import console, failures_in_one_sentence
from training.options.base import Frozen, describe_faults
from training.starting.origin import keep_weights

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT)


class Link(Frozen):
    """One segment of a chain."""

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="of its folder, and of its file of weights")
    stage: str = Field(description="of the preset, as for `run --stage`")
    through: str | None = Field(None, description="the last stage, where the segment has more than one")
    settings: tuple[str, ...] = Field((), description="what differs from the preset, as for `run --set`")
    hours: float = Field(gt=0, description="that it takes on one core, about")


class Chain(Frozen):
    """A recipe in segments; paths count from the file's folder, and may name variables of the environment."""

    preset: str = Field(description="a shipped preset, or the path of a TOML file")
    data: str = Field(description="the data file")
    weights: str = Field(description="folder of the finished segments' weights")
    segments: tuple[Link, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one.name for one in self.segments]
        if len(set(names)) < len(names):
            raise ValueError(f"segments must have names of their own; got {names}")
        return self


class Place:
    """A segment and where it stands.

    Attributes:
        link: the segment.
        run: folder of its run.
        weights: file that it leaves when it is finished.
    """

    def __init__(self, link: Link, out: Path, weights: Path) -> None:
        self.link = link
        self.run = out / link.name
        self.weights = weights / f"{link.name}.pt"

    @property
    def is_done(self) -> bool:
        """Whether its weights are there; a run whose weights are to be written yet is not done."""
        return self.weights.exists()

    @property
    def has_begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.run / CHECKPOINT_NAME).exists()

    def describe(self) -> str:
        """Where it stands, in words."""
        if self.is_done:
            return f"done: {self.weights.stat().st_size / 1e6:.1f} MB"
        if not self.has_begun:
            return "to do"
        found = load_checkpoint(self.run / CHECKPOINT_NAME)
        if found.stage >= found.end:
            return "trained, weights to be written"
        return f"under way: {found.epoch} of {found.parsed_config().stages[found.stage].epochs} epochs"


def load_chain(path: Path) -> Chain:
    """Read a chain; its paths become such as the process can use.

    Raises:
        ConfigError: it cannot be understood.
    """
    try:
        chain = Chain.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; wanted a TOML file with [[segments]]") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_faults(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error

    def place(text: str) -> str:
        return str(path.parent / _expand(text))

    preset = place(chain.preset) if chain.preset.endswith(".toml") else chain.preset
    links = [
        link.model_copy(update={"settings": tuple(_expand(setting) for setting in link.settings)})
        for link in chain.segments
    ]
    return Chain(preset=preset, data=place(chain.data), weights=place(chain.weights), segments=tuple(links))


def _expand(text: str) -> str:
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ConfigError(f"{text!r} names a variable of the environment that is not set")
    return expanded


def chain(
    file: Annotated[Path, typer.Argument(metavar="CHAIN.toml", help="The segments.")],
    out: Annotated[Path, typer.Option(help="Folder of the segments' runs.")],
    root: RootOption = None,
    only: Annotated[str | None, typer.Option(metavar="SEGMENT", help="Train this segment alone.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say where the segments stand, and train nothing.")] = False,
    device: Annotated[str, typer.Option(help="As for `run`.")] = "auto",
    stop_after: Annotated[str, typer.Option(metavar="TIME", help="As for `run`, of each segment.")] = "0",
    measure_every: Annotated[int, typer.Option(min=0, metavar="EPOCHS", help="As for `run`.")] = 10,
) -> None:
    """Train what is left of a recipe in segments, each from the weights of the one before.

    A segment that was stopped goes on where it was. When it is finished its weights are kept as `unihead-train weights`
    writes them, and the next begins. SIGTERM and Ctrl-C stop it as they stop `run`.
    """
    with failures_in_one_sentence():
        found = load_chain(file)
        places = [Place(link, out, Path(found.weights)) for link in found.segments]
        if only is not None and only not in [place.link.name for place in places]:
            raise ConfigError(f"{file} has no segment {only!r}; it has {', '.join(p.link.name for p in places)}")
        _show(places)
        if list_:
            return
        more = ["--device", device, "--stop-after", stop_after, "--measure-every", str(measure_every)]
        for place, before in zip(places, [None, *places], strict=False):
            if place.is_done or only not in {None, place.link.name}:
                continue
            if before is not None and not before.is_done:
                raise ConfigError(f"{place.link.name} starts from {before.weights}, which is not there yet")
            _train(place, found, before, [*more, *(["--root", str(root)] if root else [])])


def _show(places: Sequence[Place]) -> None:
    left = sum(place.link.hours for place in places if not place.is_done)
    table = Table("segment", "stage", "hours", "state", title=f"{left:g} hours are left")
    for place in places:
        table.add_row(place.link.name, place.link.stage, f"{place.link.hours:g}", place.describe())
    console.print(table)


def _train(place: Place, found: Chain, before: Place | None, more: Sequence[str]) -> None:
    place.run.parent.mkdir(parents=True, exist_ok=True)
    words = ["run", "--data", found.data, "--out", str(place.run), *more]
    if place.has_begun:
        words.append("--resume")
    else:
        link = place.link
        words += ["--preset", found.preset, "--stage", link.stage]
        words += ["--through", link.through] if link.through else []
        words += [word for setting in link.settings for word in ("--set", setting)]
        words += ["--init-from", str(before.weights)] if before is not None else []
    if code := _run(words):
        raise typer.Exit(code)
    place.weights.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(keep_weights(load_checkpoint(place.run / CHECKPOINT_NAME)), place.weights)
    console.print(f"{place.link.name}: {place.weights}", highlight=False)


def _run(words: Sequence[str]) -> int:
    """Run `unihead-train` in a process of its own, which gives all of its memory back; gives its exit code."""
    command = [sys.executable, "-m", "training", *words]
    with subprocess.Popen(command) as process, _pass_on_signals(process):  # noqa: S603 - this command, no shell
        return process.wait()


@contextmanager
def _pass_on_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the run be stopped by what would stop this process; it decides when, and this process waits for it.

    A terminal's Ctrl-C reaches both, so that one is only kept from ending this process first.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGINT or not sys.stdin.isatty():
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
