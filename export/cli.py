"""`unihead-export`: a checkpoint into one ONNX file, and the proof that both say the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from export.calibrate import Found, calibrate
from export.parity import BATCH_SIZES, MAX_METRIC_DIFFERENCE, compare_engines, compare_metrics, load_squares
from export.quantize import QuantizationError, compare_times, find_objections
from export.quantize import quantize as quantize_file
from export.to_onnx import CALIBRATION, ExportError, Overrides, export_onnx
from export.triton import write_repository
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.errors import UniheadError
from training.checkpoint import CheckpointError, load_checkpoint
from training.config import Task
from training.data.datasets import DataError, DataSets, SplitName
from training.data.sources import read_data
from training.data.taxonomy import TaxonomyError
from training.inference import build_engine, choose_tasks, read_taxonomy, restore_model

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

CheckpointOption = Annotated[Path, typer.Option(help="checkpoint.pt of a finished run, or its weights.")]
RootOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="What the paths of a data file count from; else its own folder, then UNIHEAD_DATA."
    ),
]


@app.command()
def onnx(
    checkpoint: CheckpointOption,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("unihead.onnx"),
    golden: Annotated[
        Path | None, typer.Option(help="Folder of JPEG pictures for the golden answers; default: those that ship.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the square input, instead of the preset's.")
    ] = None,
    iou_threshold: Annotated[
        float | None, typer.Option(help="Class-wise NMS drops boxes that overlap more; instead of the preset's.")
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="Boxes in an answer at most, instead of the preset's.")
    ] = None,
    score_floor: Annotated[
        float | None, typer.Option(help="Boxes that score less are dropped before NMS; instead of the preset's.")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(help="Of answers to requests that name none; instead of the preset's, or the best F1's."),
    ] = None,
    calibrate_on: Annotated[
        Path | None,
        typer.Option(metavar="FILE|FOLDER", help="Data by which scores become chances; its pictures of --split count."),
    ] = None,
    root: RootOption = None,
    split: Annotated[SplitName, typer.Option(help="With --calibrate-on: which pictures.")] = "choose",
) -> None:
    """Write one self-contained ONNX file: pre- and post-processing in the graph, the contract in the metadata.

    What the file does otherwise than the preset stands in its contract and at the end of its version; figures that it
    was not measured with are left out.

    With --calibrate-on a score is the chance that the box is right (IoU 0.5), a probability that the class is, and
    requests that name no threshold get that of the best F1.
    """
    overrides = Overrides(input_size, iou_threshold, max_detections, score_floor, score_threshold)
    try:
        loaded = load_checkpoint(checkpoint)
        if calibrate_on:
            found = calibrate(loaded, _read(calibrate_on, root), split, overrides)
            overrides = found.overrides
            _show_calibration(found)
        contract = export_onnx(loaded, out, golden=golden or GOLDEN_PICTURES, overrides=overrides)
    except (CheckpointError, DataError, ExportError, TaxonomyError, UniheadError) as error:
        raise _failure(error) from error
    console.print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, version {contract.version}, input {contract.input_size} px, "
        f"mask stride {contract.mask_stride}, {len(contract.golden)} golden answers",
        highlight=False,
    )


@app.command()
def parity(
    checkpoint: CheckpointOption,
    model: Annotated[Path, typer.Option(help="The exported ONNX file.")] = Path("unihead.onnx"),
    data: Annotated[
        Path | None,
        typer.Option(envvar="UNIHEAD_DATA", help="Mini sets: their validation pictures, and metrics from both sides."),
    ] = None,
    root: RootOption = None,
) -> None:
    """Ask torch and ONNX Runtime about the same pictures; exit 1 when their answers or metrics part.

    Without --data the pictures that ship are compared, and no metrics.
    """
    try:
        loaded = load_checkpoint(checkpoint)
        network = restore_model(loaded)
        candidate = load_engine(model)
        config = Overrides.of_contract(candidate.contract).apply(loaded.parsed_config())
        reference = build_engine(network, config, loaded.taxonomy, torch.device("cpu"), git_commit=loaded.git_commit)
        if candidate.contract.weights_sha256 != reference.contract.weights_sha256:
            raise ExportError(f"{model} was exported from other weights than {checkpoint}; export it again")
        sets = _read(data, root) if data else None
        tasks = _choose_tasks(reference, sets, checkpoint) if sets else []
    except (CheckpointError, DataError, ExportError, TaxonomyError, UniheadError) as error:
        raise _failure(error) from error
    if sets:
        pictures = [sample.image for task in tasks for sample in sets.split(task).final.samples]
    else:
        pictures = sorted(GOLDEN_PICTURES.glob("*.jpg"))
    squares = load_squares(pictures, reference)
    table = Table("batch", "pictures", "boxes, px", "scores", "matched", "class probs", "mask cells equal")
    failures = []
    for batch_size in BATCH_SIZES:
        found = compare_engines(reference, candidate, squares, batch_size=batch_size)
        table.add_row(
            str(batch_size),
            str(found.pictures),
            f"{found.boxes_px:.4f}",
            f"{found.scores:.1e}",
            f"{found.matched:.3%}",
            f"{found.class_probs:.1e}",
            f"{found.mask_agreement:.4%}",
        )
        failures += [f"batches of {batch_size}: {sentence}" for sentence in found.failures()]
    console.print(table)
    if sets:
        metrics = Table("metric", "torch", "ONNX Runtime")
        for name, (one, other) in compare_metrics(
            reference, candidate, sets, batch_size=config.eval_batch_size
        ).items():
            metrics.add_row(name, f"{one:.4f}", f"{other:.4f}")
            if abs(one - other) > MAX_METRIC_DIFFERENCE:
                failures.append(f"{name} is {one:.4f} in torch and {other:.4f} in ONNX Runtime")
        console.print(metrics)
    _stop_for("parted", failures)
    console.print("parity holds", style="green")


@app.command()
def quantize(
    data: Annotated[Path, typer.Option(envvar="UNIHEAD_DATA", help="Mini sets: train to calibrate, val to judge.")],
    model: Annotated[Path, typer.Option(help="A file of `unihead-export onnx`.")] = Path("unihead.onnx"),
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("unihead-int8.onnx"),
    pictures: Annotated[int, typer.Option(min=1, help="Training pictures of each task to calibrate with.")] = 14,
    root: RootOption = None,
) -> None:
    """Write a file with neck and branches in int8; exit 1, without one, if a metric drops a point or it is slower."""
    temporary = out.with_name(f"{out.name}.tmp")
    try:
        sets = _read(data, root)
        reference = load_engine(model, threads=1)
        tasks = _choose_tasks(reference, sets, model)
        chosen = [s.image for task in tasks for s in sets.split(task).train[:pictures]]
        squares = load_squares(chosen, reference)
        convolutions = quantize_file(model, temporary, squares)
        candidate = load_engine(temporary, threads=1)
        metrics = compare_metrics(reference, candidate, sets, batch_size=1)
        times_ms = compare_times(reference, candidate, squares)
        objections = find_objections(metrics, times_ms)
        if not objections:
            temporary.replace(out)
    except (DataError, QuantizationError, TaxonomyError, UniheadError) as error:
        raise _failure(error) from error
    finally:
        temporary.unlink(missing_ok=True)
    table = Table("metric", "float32", "int8")
    for name, (before, after) in metrics.items():
        table.add_row(name, f"{before:.4f}", f"{after:.4f}")
    table.add_row("ms a pass, one thread", f"{times_ms[0]:.2f}", f"{times_ms[1]:.2f}")
    console.print(table)
    _stop_for("refused", objections)
    console.print(
        f"{out}: {len(convolutions)} convolutions in int8, {out.stat().st_size / 1e6:.1f} MB", highlight=False
    )


@app.command()
def triton(
    model: Annotated[Path, typer.Option(help="A file of `unihead-export onnx`.")] = Path("unihead.onnx"),
    out: Annotated[Path, typer.Option(help="The model repository.")] = Path("model_repository"),
    name: Annotated[str, typer.Option(help="Of the model in it.")] = "unihead",
    max_batch: Annotated[int, typer.Option(min=1, help="Pictures in one pass at most.")] = 8,
    max_delay_us: Annotated[int, typer.Option(min=0, help="Microseconds that a picture waits for others.")] = 100,
) -> None:
    """Write a model repository for Triton: configuration, labels, warm-up, and the file itself."""
    try:
        contract = write_repository(model, out, name=name, max_batch=max_batch, max_delay_us=max_delay_us)
    except (UniheadError, OSError) as error:
        raise _failure(error) from error
    console.print(f"{out / name}: {contract.version}, batches of {max_batch} at most", highlight=False)


def _read(data: Path, root: Path | None) -> DataSets:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what training left out of train says nothing about val
        return read_data(data, root=root)


def _show_calibration(found: Found) -> None:
    for task, (before, after) in found.reliability.items():
        table = Table("score", *("answers", "mean score", "share right") * 2, title=f"{task}: before and after")
        for place in range(len(before.counts)):
            cells = [f"{place / len(before.counts):.1f}"]
            for one in (before, after):
                figures = (one.scores[place], one.shares_right[place])
                cells += [str(one.counts[place]), *("" if value is None else f"{value:.3f}" for value in figures)]
            table.add_row(*cells)
        console.print(table)
        console.print(f"expected calibration error: {before.error:.4f}, then {after.error:.4f}", highlight=False)
    values = {name: value for name, value in asdict(found.overrides).items() if name in CALIBRATION and value}
    console.print(", ".join(f"{name} {value}" for name, value in values.items()), highlight=False)
    if found.point is not None:
        point = {name: f"{value:.3f}" for name, value in asdict(found.point).items()}
        console.print(", ".join(f"{name} {value}" for name, value in point.items()), highlight=False)


def _choose_tasks(engine: Engine, sets: DataSets, path: Path) -> list[Task]:
    return choose_tasks(engine, read_taxonomy(engine.contract).tasks, sets, owner=str(path))


def _stop_for(verdict: str, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        console.print(f"{verdict}: {sentence}", style="bold red", highlight=False, markup=False)
    if sentences:
        raise typer.Exit(1)


def _failure(error: Exception) -> typer.Exit:
    Console(stderr=True).print(
        f"unihead-export: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True
    )
    return typer.Exit(1)


def main() -> None:
    """Entry point of `unihead-export`."""
    app()
