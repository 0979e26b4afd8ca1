"""What a run was made of: data, config, code, machine, time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from training.config import Config, ConfigError, Task, load_config
from training.data.doctor.findings import SplitSummary
from training.data.doctor.html import charts
from training.data.record import DataRecord, FaultRecord, SplitRecord
from training.data.taxonomy import MINI
from training.lab.report.html import Cell, format_seconds, note, section, table
from training.lab.report.record import RunRecord
from training.metrics.evaluation import PRIMARY_METRIC

_UNITS = {Task.SEGMENTATION: "object pixels", Task.DETECTION: "objects", Task.CLASSIFICATION: "pictures"}
_SHIPPED_BASE = "default"
_JUDGES = {"choose": "pictures for choices", "holdout": "held-out training pictures"}
IMAGENETTE_NOTE = (
    "Imagenette's validation pictures come from ImageNet's training split: a backbone with ImageNet weights "
    "has seen them, so its classification figures flatter it."
)


def data_section(record: RunRecord) -> str:
    """Sets, classes, faults, fingerprint."""
    remark = note(IMAGENETTE_NOTE) if record.taxonomy.classification == MINI.classification else ""
    used = {task: record.pictures[task] for task in Task if task in record.pictures}
    measured = " ".join(_measured_sentences(record))
    if record.data is None:
        rows = [[task, f"{count:,}"] for task, count in used.items()]
        return section("data", "Data", table(["Task", "Trained on"], rows), note(measured), remark)
    return section(
        "data",
        "Data",
        f"<p>Fingerprint <code>{escape(record.data.fingerprint)}</code></p>",
        note("SHA-256 of all pictures and labels that were read: runs of the same fingerprint learned from the same."),
        table(
            ["Task", "Split", "Pictures", "Trained on", "Labelled", "Classes"],
            list(_split_rows(record.data, used)),
            numbers_from=2,
        ),
        note(measured),
        remark,
        "<h3>Faults that the doctor found</h3>",
        _faults(record.data.faults),
        *(_class_counts(task, splits) for task, splits in record.data.splits.items()),
    )


def _measured_sentences(record: RunRecord) -> Iterator[str]:
    final = record.evaluations[-1].get("splits", {})
    wanting = [task for task, split in final.items() if split == "choose"]
    if record.config.holdout:
        yield f"A share of {record.config.holdout:g} of the training pictures was held out and measured on."
    elif len(wanting) < len(final) or not final:
        yield "Measured on the validation split."
    if wanting:
        yield f"The data has no val of {' and '.join(wanting)}: measured on choose, by which choices were made too."
    choices = {task for entry in record.history for task, split in entry.get("splits", {}).items() if split == "choose"}
    if others := [str(task) for task in Task if task in choices - set(wanting)]:
        yield f"Within stages, and to judge the polish, {' and '.join(others)} was measured on choose."


def _split_rows(data: DataRecord, used: Mapping[Task, int]) -> Iterator[list[str | Cell]]:
    for task, splits in data.splits.items():
        for name, split in splits.items():
            trained = f"{used[task]:,}" if name == "train" and task in used else ""
            labelled = f"{sum(split.class_counts.values()):,} {_UNITS[task]}"
            classes = str(sum(1 for count in split.class_counts.values() if count))
            yield [task, name, f"{split.pictures:,}", trained, labelled, classes]


def _faults(faults: Sequence[FaultRecord]) -> str:
    if not faults:
        return "<p>None: every check passed.</p>"
    rows: list[list[str | Cell]] = [
        [
            Cell(f'<span class="badge {escape(fault.severity)}">{escape(fault.severity)}</span> {escape(fault.title)}'),
            Cell(f"<code>{escape(fault.code)}</code>"),
            "repaired when training" if fault.repaired else "",
            f"{fault.cases:,}",
        ]
        for fault in faults
    ]
    return table(["Finding", "Code", "", "Cases"], rows, numbers_from=3)


def _class_counts(task: Task, splits: Mapping[str, SplitRecord]) -> str:
    summaries = [SplitSummary(name, split.pictures, split.class_counts, (), ()) for name, split in splits.items()]
    chart = charts.legend(summaries) + charts.class_bars(summaries, _UNITS[task])
    return f"<details><summary>{task}: classes, by their share of each split</summary>{chart}</details>"


def config_section(config: Config) -> str:
    """What differs from the preset, then everything."""
    name, base = _find_base(config)
    mine, theirs = flatten(config.model_dump(mode="json")), flatten(base.model_dump(mode="json"))
    differing = [key for key in dict.fromkeys([*mine, *theirs]) if mine.get(key) != theirs.get(key) and key != "preset"]
    rows: list[list[str | Cell]] = [
        [
            Cell(f"<code>{escape(key)}</code>"),
            *(Cell(f"<code>{escape(values.get(key, ''))}</code>") for values in (mine, theirs)),
        ]
        for key in differing
    ]
    told = (
        table(["Key", "This run", f"Preset {name}"], rows, numbers_from=3)
        if rows
        else f"<p>As the shipped preset <code>{escape(name)}</code>.</p>"
    )
    lines = "\n".join(
        f"<mark>{escape(line)}</mark>" if key in differing else escape(line)
        for key, value in mine.items()
        for line in (f"{key} = {value}",)
    )
    return section(
        "config",
        "Config",
        told,
        f"<details><summary>All {len(mine)} values</summary><pre>{lines}</pre></details>",
    )


def _find_base(config: Config) -> tuple[str, Config]:
    """The shipped preset of that name; of a preset of somebody's own, the default one."""
    try:
        return config.preset, load_config(config.preset)
    except ConfigError:
        return _SHIPPED_BASE, load_config(_SHIPPED_BASE)


def flatten(values: Any, prefix: str = "") -> dict[str, str]:  # noqa: ANN401 - whatever JSON has
    """Every value of a config by its dotted key, in words; of a path only the last part."""
    if isinstance(values, Mapping) and values:
        return {
            key: value
            for name, inner in values.items()
            for key, value in flatten(inner, f"{prefix}.{name}" if prefix else name).items()
        }
    if isinstance(values, list) and values and isinstance(values[0], Mapping):
        named = {str(inner.get("task") or place): inner for place, inner in enumerate(values)}
        return flatten(named if len(named) == len(values) else dict(enumerate(values)), prefix)
    if isinstance(values, str) and ("/" in values or "\\" in values):
        values = values.replace("\\", "/").rsplit("/", 1)[-1]
    return {prefix: str(values)}


def environment_section(record: RunRecord) -> str:
    """Code, packages and machine; a column for each time that the run was begun or gone on with elsewhere."""
    rows: list[list[str | Cell]] = [
        ["commit that began the run", record.git_commit],
        ["seed", str(record.config.seed)],
        ["parameters", f"{record.parameters:,}"],
    ]
    keys = dict.fromkeys(key for each in record.environments for key in each)
    count = max(1, len(record.environments))
    rows = [[*row, *[""] * (count - 1)] for row in rows]
    rows += [[key, *(each.get(key, "") for each in record.environments)] for key in keys]
    head = ["", "begun with", *(["then with"] * (count - 1))]
    return section("environment", "Environment", table(head, rows, numbers_from=len(head)))


def times_section(record: RunRecord) -> str:
    """Where the hours went."""
    rows: list[list[str | Cell]] = []
    for stage in record.stages:
        entries = [entry for entry in record.history if entry["stage"] == stage]
        epochs = [entry["seconds"] for entry in entries if entry["kind"] == "epoch"]
        learning, together = math.fsum(epochs), count_seconds(entries)
        fisher = math.fsum(entry.get("fisher_seconds", 0.0) for entry in entries)
        rows.append(
            [
                f"stage {stage}",
                str(len(epochs)),
                format_seconds(learning),
                format_seconds(learning / len(epochs)) if epochs else "",
                format_seconds(together - learning - fisher),
                format_seconds(fisher),
                format_seconds(together),
            ]
        )
    rows.append(["all", *[""] * 5, format_seconds(count_seconds(record.history))])
    head = ["", "Epochs", "Learning", "An epoch", "Measuring", "Importance", "Together"]
    pass_ms = record.evaluations[-1]["ms_per_image"]
    return section(
        "times",
        "Times",
        table(head, rows),
        note(f"{pass_ms:.1f} ms per image in torch, letterboxed, one at a time, on this run's device."),
    )


def count_seconds(entries: Sequence[Mapping[str, Any]]) -> float:
    """Add up how long entries of the history took, measuring within stages too; in seconds."""
    return math.fsum(entry["seconds"] + entry.get("measure_seconds", 0.0) for entry in entries)


def polish_sentences(record: RunRecord) -> list[str]:
    """What became of the joint polish, and why."""
    sentences = []
    for entry in record.history:
        if entry["kind"] == "polish":
            changes = "; ".join(
                f"{task} {before[name]:.4f} → {entry['after'][task][name]:.4f}"
                for task, before in entry["before"].items()
                for name in (PRIMARY_METRIC[Task(task)],)
            )
            verdict = "kept" if entry["kept"] else "undone"
            splits = entry.get("splits", {}).values() or ["holdout"]
            where = " and ".join(_JUDGES[split] for split in sorted(set(splits)))
            sentences.append(f"Joint polish {verdict}; on {where}: {changes}.")
    return sentences
