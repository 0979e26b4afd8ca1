"""`unihead-train weights`: what another run can start from, in one small file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.checkpoint import load_checkpoint, save_checkpoint
from training.console import console, failures_in_one_sentence
from training.starting.origin import find_checkpoint, keep_weights


def weights(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="Folder of a run, or its checkpoint.pt.")],
    out: Annotated[Path, typer.Option(help="The file to write, FILE.pt.")],
) -> None:
    """Write a run's weights alone, in half precision, with its config, classes and evaluations.

    It is a checkpoint that runs start from (--init-from) and that is measured, exported or taught from as any other;
    only --resume needs more. Of a stage that is under way and averages, the weights are the average.
    """
    with failures_in_one_sentence():
        path = find_checkpoint(source)
        kept = keep_weights(load_checkpoint(path))
        if out.resolve() == path.resolve():
            raise FileExistsError(
                f"{out} is the checkpoint itself, and the run needs it to go on; choose another --out"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(kept, out)
    done = " and ".join(kept.learned) or "nothing"
    console.print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, has learned {done}", highlight=False)
