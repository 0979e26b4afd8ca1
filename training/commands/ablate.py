"""`unihead-train ablate`: a table of experiments, trained and written up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import DeviceOption
from training.console import choose_device, console, failures_in_one_sentence, read, say
from training.environment import describe_machine
from training.lab.ablation.records import RECORDS_NAME, read_records
from training.lab.ablation.report import write_report
from training.lab.ablation.run import Plan, RowTrainer, run_table
from training.lab.ablation.shelf import Shelf
from training.lab.ablation.table import SHIPPED_TABLE, load_table


def ablate(
    data: Annotated[Path | None, typer.Option(envvar="UNIHEAD_DATA", help="As for `run`.")] = None,
    table: Annotated[Path, typer.Option(help="TOML file with a base and rows.", show_default=False)] = SHIPPED_TABLE,
    out: Annotated[Path, typer.Option(help="Folder of results and report.")] = Path("docs"),
    work: Annotated[Path, typer.Option(help="Folder of the runs while they are trained.")] = Path("runs/ablation"),
    seeds: Annotated[
        list[int] | None, typer.Option(min=0, help="Give it once per seed; 0 if not given. The first is run first.")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, metavar="ROWS", help="Further seeds only for so many of the best rows.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folders of the runs.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Train nothing, write the report.")] = False,
    backbone_weights: Annotated[
        Path | None, typer.Option(envvar="UNIHEAD_BACKBONE_WEIGHTS", help="As for `run`.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train each row of a table of experiments that has no result yet, and write a report of all.

    Results are measured on training pictures that are held out. The best rows are those with the highest mean over the
    tasks of their figure at the end, as a share of the base's.
    """
    if data is None and not report_only:
        raise typer.BadParameter("wanted the folder of the data, to train on", param_hint="--data")
    chosen = choose_device(device)
    with failures_in_one_sentence():
        experiments = load_table(table)
        if data is not None and not report_only:
            sets = read(data)
            machine = describe_machine(chosen)
            plan = Plan(experiments, out / RECORDS_NAME, seeds or [0], best=best, work=work, keep=keep, machine=machine)
            shelf = Shelf(work / "shared", experiments, plan.seeds)
            run_table(plan, RowTrainer(sets, chosen, backbone_weights, console, shelf), say)
        written = write_report(experiments, read_records(out / RECORDS_NAME), out)
    console.print(f"report: {written}", highlight=False)
