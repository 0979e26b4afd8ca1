"""Options that several commands of `unihead-train` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path,
    typer.Option(envvar="UNIHEAD_DATA", metavar="FILE|FOLDER", help="Data file, or folder; see `unihead-data show`."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes CUDA when there is one.")]
RootOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="What the paths of a data file count from; else its own folder, then UNIHEAD_DATA."
    ),
]
