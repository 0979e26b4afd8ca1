"""The one way from `--data FILE|FOLDER` to pictures with labels: what is there, read, joined, and told."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from training.data.datasets import DataSets
from training.data.layouts.faults import DataError, DataWarning, Faults
from training.data.sets.completing import complete
from training.data.sets.data_file import DataFile, load_data_file
from training.data.sets.guess import guess
from training.data.sets.joining import join
from training.data.sets.opening import Opened, open_source
from training.data.sets.showing import Understood
from training.data.taxonomy import TaxonomyError

ROOT_VARIABLE: Final = "UNIHEAD_DATA"


def read_data(path: Path, *, root: Path | None = None) -> DataSets:
    """Read what a run learns from.

    Args:
        path: a data file, the name of a shipped one, or a folder, which is guessed.
        root: folder that the paths of a data file count from; else the file's own, then UNIHEAD_DATA.

    Raises:
        DataError: there is nothing to learn from, or a fault that cannot be mended; says what to do.

    Warns:
        DataWarning: something was left out, or is named by nothing.
    """
    data, roots = find_sources(path, root)
    faults = Faults()
    opened = [open_source(source, data, roots, faults) for source in data.source]
    sets, told = _join(data, opened)
    for line in (*(line for each in opened for line in each.told), *faults.describe(), *told):
        warnings.warn(line, DataWarning, stacklevel=2)
    return sets


def describe_data(path: Path, *, root: Path | None = None) -> Understood:
    """Say what would be read; faults become sentences, and whatever has none is described all the same."""
    problems: list[str] = []
    told: list[str] = []
    try:
        data, roots = find_sources(path, root)
    except DataError as error:
        return Understood(path, None, (), None, (str(error),), ())
    faults = Faults()
    opened = []
    for source in data.source:
        try:
            opened.append(open_source(source, data, roots, faults))
        except DataError as error:
            problems.append(str(error))
    sets = None
    if not problems:
        try:
            sets, told = _join(data, opened)
        except DataError as error:
            problems.append(str(error))
    lines = (*(line for each in opened for line in each.told), *faults.describe(), *told)
    return Understood(path, complete(data, opened, roots), tuple(opened), sets, tuple(problems), lines)


def find_sources(path: Path, root: Path | None = None) -> tuple[DataFile, tuple[Path, ...]]:
    """Load a data file or guess a folder.

    Returns:
        The sources, and the folders that their paths may count from.

    Raises:
        DataError: there is neither, or it cannot be understood.
    """
    if path.is_dir():
        return guess(path), (path,)
    shipped = resources.files("training.data.sets") / f"{path.name}.toml"
    if not path.exists() and path.parent == Path() and shipped.is_file():
        with resources.as_file(shipped) as file:
            return load_data_file(file), _roots(root, ())
    if not path.exists():
        raise DataError(f"{path}: no such folder and no such data file; wanted a folder of data sets, or a data file")
    return load_data_file(path), _roots(root, (path.parent,))


def _roots(root: Path | None, own: Sequence[Path]) -> tuple[Path, ...]:
    if root is not None:
        return (root,)
    variable = os.environ.get(ROOT_VARIABLE)
    return (*own, *([Path(variable)] if variable else [])) or (Path(),)


def _join(data: DataFile, opened: Sequence[Opened]) -> tuple[DataSets, list[str]]:
    try:
        return join(data, opened)
    except TaxonomyError as error:
        raise DataError(str(error)) from error
