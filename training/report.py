"""The report of a run: what was learned, what was forgotten, and how it looks, as Markdown with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from service.engine import Engine
from service.imaging import UInt8Array, letterbox
from service.postprocess import classes, detections, mask
from training.config import Config, Task
from training.data.datasets import MiniSets, load_image
from training.data.loaders import Sample, split_of
from training.evaluation import PRIMARY_METRIC

MAX_DROP_PERCENT = 5.0
# What the student report printed: before and after. Its classification fell though it is the last stage, so its first
# figure is probably from a run of its own.
STUDENT_REPORT: dict[str, tuple[str, str, str]] = {
    "parameters": ("1.27 M", "1.27 M", ""),
    "segmentation": ("0.954", "0.975", "called mIoU; the figure fits `miou_eps_per_image`"),
    "detection": ("0.0015", "0.000", "mAP@0.5"),
    "classification": ("0.800", "0.533", "top-1"),
}
IMAGENETTE_NOTE = (
    "- Imagenette's validation pictures come from ImageNet's training split: a backbone with ImageNet weights "
    "has seen them, so its classification figures flatter it."
)
_SAMPLES_PER_TASK = 4


def compute_drops(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, float, float]]]:
    """Per task: (stage, value, drop in percent of the value after the task's own stage), own stage first.

    Args:
        evaluations: history entries of kind "evaluation", in the order of the stages.

    Returns:
        By task; a drop below zero is a gain. A task whose own value is 0 cannot drop: its drops are 0.
    """
    table: dict[str, list[tuple[str, float, float]]] = {}
    for entry in evaluations:
        for task, metrics in entry["metrics"].items():
            value = metrics[PRIMARY_METRIC[Task(task)]]
            baseline = table[task][0][1] if task in table else value
            drop = round(100 * (baseline - value) / baseline, 6) if baseline else 0.0  # 0.60 to 0.57 is 5 %, not more
            table.setdefault(task, []).append((entry["stage"], value, drop))
    return table


def write_report(
    out: Path,
    *,
    config: Config,
    history: Sequence[Mapping[str, Any]],
    parameters: int,
    device: str,
    git_commit: str,
    engine: Engine,
    sets: MiniSets,
) -> Path:
    """Write report.md and its pictures into the run's folder; returns the path of report.md."""
    evaluations = [entry for entry in history if entry["kind"] == "evaluation"]
    figures = out / "figures"
    figures.mkdir(exist_ok=True)
    _plot_losses(history, figures / "losses.png")
    samples = _plot_samples(engine, sets, figures)
    sections = [
        f"# Training report: preset `{config.preset}`",
        _facts(config, history, parameters=parameters, device=device, git_commit=git_commit, sets=sets),
        "## What was forgotten\n\n" + _drop_table(evaluations),
        "## Beside the student report\n\n" + _comparison(evaluations, parameters=parameters),
        "## All metrics, validation split\n\n" + _metrics_table(evaluations),
        "## Losses\n\n![Loss per epoch, by stage](figures/losses.png)",
        "## Sample predictions\n\nThe first validation pictures of each task, through the served pre- and "
        "post-processing. Boxes: the five that score best, whatever the score.\n\n"
        + "\n\n".join(f"![{title}](figures/{name})" for title, name in samples),
    ]
    path = out / "report.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _facts(
    config: Config,
    history: Sequence[Mapping[str, Any]],
    *,
    parameters: int,
    device: str,
    git_commit: str,
    sets: MiniSets,
) -> str:
    evaluations = [entry for entry in history if entry["kind"] == "evaluation"]
    seconds: dict[str, float] = {}
    for entry in history:
        seconds[entry["stage"]] = seconds.get(entry["stage"], 0.0) + entry["seconds"]
    pictures = "; ".join(f"{task} {len(split_of(sets, task).train)} / {len(split_of(sets, task).val)}" for task in Task)
    return "\n".join(
        [
            f"- commit {git_commit}, seed {config.seed}, device {device}, input {config.input_size} px",
            f"- pictures (train / val): {pictures}",
            f"- parameters: {parameters:,} ({parameters / 1e6:.2f} M)",
            *(f"- wall time of stage {stage}: {value / 60:.1f} min" for stage, value in seconds.items()),
            *(_describe_polish(entry, config) for entry in history if entry["kind"] == "polish"),
            f"- {evaluations[-1]['ms_per_image']:.1f} ms per image on {device} (torch, letterboxed, one at a time)",
            IMAGENETTE_NOTE,
        ]
    )


def _describe_polish(entry: Mapping[str, Any], config: Config) -> str:
    changes = "; ".join(
        f"{task} {metrics[PRIMARY_METRIC[Task(task)]]:.4f} → {entry['after'][task][PRIMARY_METRIC[Task(task)]]:.4f}"
        for task, metrics in entry["before"].items()
    )
    where = "held-out training pictures" if config.holdout else "the training pictures"
    return f"- joint polish {'kept' if entry['kept'] else 'undone'}; on {where}: {changes}"


def _drop_table(evaluations: Sequence[Mapping[str, Any]]) -> str:
    stages = [entry["stage"] for entry in evaluations]
    lines = [
        "| task | metric | " + " | ".join(f"after {stage}" for stage in stages) + " | drop | at most 5 % |",
        "|---|---|" + "---|" * (len(stages) + 2),
    ]
    for task, rows in compute_drops(evaluations).items():
        values = {stage: value for stage, value, _ in rows}
        drop = rows[-1][2]
        if len(rows) == 1:
            shown, verdict = "", "last stage"
        else:
            shown, verdict = f"{drop:.1f} %", "pass" if drop <= MAX_DROP_PERCENT else "**fail**"
        if not rows[0][1]:
            verdict = "nothing to lose: 0 after its own stage"
        cells = [f"{values[stage]:.4f}" if stage in values else "" for stage in stages]
        lines.append(f"| {task} | `{PRIMARY_METRIC[Task(task)]}` | " + " | ".join(cells) + f" | {shown} | {verdict} |")
    return "\n".join(lines)


def _comparison(evaluations: Sequence[Mapping[str, Any]], *, parameters: int) -> str:
    lines = [
        "| figure | student report: after own stage → end | this run: after own stage → end | note |",
        "|---|---|---|---|",
        f"| parameters | {STUDENT_REPORT['parameters'][0]} | {parameters / 1e6:.2f} M | |",
    ]

    def row(title: str, task: Task, metric: str, reported: tuple[str, str] | None, note: str) -> None:
        values = [entry["metrics"][task][metric] for entry in evaluations if task in entry["metrics"]]
        if values:
            old = f"{reported[0]} → {reported[1]}" if reported else "not given"
            lines.append(f"| {title} | {old} | {values[0]:.4f} → {values[-1]:.4f} | {note} |")

    segmentation, detection, classification = (
        STUDENT_REPORT[name] for name in ("segmentation", "detection", "classification")
    )
    row("`miou_eps_per_image`", Task.SEGMENTATION, "miou_eps_per_image", segmentation[:2], segmentation[2])
    row("honest mIoU", Task.SEGMENTATION, "mean_iou", None, "all background alone has 0.034")
    row("mAP@0.5", Task.DETECTION, "map_50", detection[:2], "classes joined by name here")
    row("top-1", Task.CLASSIFICATION, "top_1", classification[:2], "")
    return "\n".join(lines)


def _metrics_table(evaluations: Sequence[Mapping[str, Any]]) -> str:
    stages = [entry["stage"] for entry in evaluations]
    lines = [
        "| task | metric | " + " | ".join(f"after {stage}" for stage in stages) + " |",
        "|---|---|" + "---|" * len(stages),
    ]
    for task, names in evaluations[-1]["metrics"].items():
        for name in names:
            cells = [f"{entry['metrics'][task][name]:.4f}" if task in entry["metrics"] else "" for entry in evaluations]
            lines.append(f"| {task} | `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plot_losses(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    epochs = [entry for entry in history if entry["kind"] == "epoch"]
    stages = list(dict.fromkeys(entry["stage"] for entry in epochs))
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(4.2 * len(stages), 3.4), layout="constrained")
        for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
            rows = [entry for entry in epochs if entry["stage"] == stage]
            for name in rows[0]["losses"]:
                if name != "loss" or len(rows[0]["losses"]) > 2:  # noqa: PLR2004 - the sum of one part is that part
                    axes.plot(
                        [row["epoch"] for row in rows],
                        [row["losses"][name] for row in rows],
                        label="sum" if name == "loss" else name,
                        color="black" if name == "loss" else None,
                        linewidth=1.2 if name == "loss" else 1.8,
                        marker="." if len(rows) < 15 else None,  # noqa: PLR2004 - few epochs, few points
                    )
            axes.set(title=f"stage {stage}", xlabel="epoch", ylabel="mean training loss")
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False)
        figure.savefig(path, dpi=110)


def _plot_samples(engine: Engine, sets: MiniSets, folder: Path) -> list[tuple[str, str]]:
    written = []
    for task in Task:
        samples: Sequence[Sample] = split_of(sets, task).val[:_SAMPLES_PER_TASK]
        figure = Figure(figsize=(4.2 * len(samples), 3.8), layout="constrained")
        for axes, sample in zip(figure.subplots(1, len(samples), squeeze=False)[0], samples, strict=True):
            _draw_prediction(axes, load_image(sample.image), engine)
        name = f"samples-{task}.png"
        figure.savefig(folder / name, dpi=110)
        written.append((f"Predictions on {task} pictures", name))
    return written


def _draw_prediction(axes: Any, image: UInt8Array, engine: Engine) -> None:  # noqa: ANN401 - matplotlib's Axes is untyped here
    contract = engine.contract
    square, place = letterbox(image, contract.input_size, contract.letterbox.fill)
    (prediction,) = engine.predict([square])
    ids = mask(prediction, place, mask_stride=contract.mask_stride)
    colors = 255 * mpl.colormaps["tab20"](range(len(contract.segmentation_classes) - 1))[:, :3]
    painted = image.copy()
    painted[ids > 0] = (0.45 * image[ids > 0] + 0.55 * colors[ids[ids > 0] - 1]).astype("uint8")
    axes.imshow(painted)
    for found in detections(prediction, place, contract.detection_classes, score_threshold=0.0, max_detections=5):
        x1, y1, x2, y2 = found.box
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="yellow", linewidth=1.3))
        axes.text(x1, y1, f"{found.label} {found.score:.2f}", fontsize=7, backgroundcolor="#ffff66", va="bottom")
    (best,) = classes(prediction, contract.classification_classes, top_k=1)
    seen = ", ".join(sorted({contract.segmentation_classes[i] for i in set(ids.ravel().tolist()) if i})) or "background"
    axes.set_title(f"class: {best.label} {best.probability:.2f}\nmask: {seen}", fontsize=8)
    axes.axis("off")
