"""What came out of a table of experiments: a line of JSON for each row and seed, and which rows did best."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from training.config import Task
from training.lab.ablation.table import AblationError, Experiment
from training.metrics.evaluation import PRIMARY_METRIC
from training.options.base import Frozen, describe_faults

RECORDS_NAME = "ablation.jsonl"


class Results(Frozen):
    """What came out of one run; metrics are 0..1, by task and name, without those that the pictures do not define.

    Attributes:
        own: metrics of each task after its own stage.
        end: the same after the last stage.
        drops: of the primary metrics, in percent of the value after the task's own stage; not for the last task.
        held_out: training pictures that were measured on and not learned from.
        seconds: of all its epochs and measuring, those of stages that it has in common with other rows too.
    """

    own: dict[Task, dict[str, float]]
    end: dict[Task, dict[str, float]]
    drops: dict[Task, float]
    held_out: dict[Task, int]
    seconds: float
    parameters: int
    ms_per_image: float


class Record(Frozen):
    """One line of the file: a row with a seed, and its results or what went wrong."""

    name: str
    direction: str
    seed: int
    digest: str
    git_commit: str
    machine: str
    results: Results | None = None
    error: str | None = None


def read_records(path: Path) -> list[Record]:
    """Read all lines; none if there is no file.

    Raises:
        AblationError: a line is no result.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            raise AblationError(
                f"{path}, line {number}, is no result: {describe_faults(error)}; remove the line"
            ) from error
    return records


def append_record(path: Path, record: Record) -> None:
    """Add one line, in one write, and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = record.model_dump_json(exclude_none=True) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())
        os.fsync(file.fileno())


def find_results(records: Sequence[Record], experiment: Experiment) -> dict[int, Results]:
    """Look up what a row has reached, by seed; lines about another config of the same name do not count."""
    return {record.seed: record.results for record in _of(records, experiment) if record.results}


def find_errors(records: Sequence[Record], experiment: Experiment) -> dict[int, str]:
    """Look up what went wrong last, by seed, where no run has gone well."""
    good = find_results(records, experiment)
    return {
        record.seed: record.error for record in _of(records, experiment) if record.error and record.seed not in good
    }


def _of(records: Sequence[Record], experiment: Experiment) -> list[Record]:
    key = experiment.name, experiment.digest
    return [record for record in records if (record.name, record.digest) == key]


def compute_score(results: Results, base: Results) -> float:
    """Mean over the tasks of the primary metric at the end, as a share of the base's; above 1 is better than the base.

    A task in which the base reaches nothing is left out.
    """
    shares = [
        results.end[task][metric] / base.end[task][metric]
        for task, metric in PRIMARY_METRIC.items()
        if base.end[task][metric]
    ]
    return statistics.fmean(shares) if shares else 0.0


def choose_best(
    experiments: Sequence[Experiment], records: Sequence[Record], *, seed: int, count: int
) -> list[Experiment]:
    """Choose the rows, the base apart, with the highest score, best first.

    Args:
        experiments: the table, the base first.
        records: of them.
        seed: whose results are compared; rows without any are left out.
        count: how many, at most.

    Raises:
        AblationError: the base has no result.
    """
    base = find_results(records, experiments[0]).get(seed)
    if base is None:
        raise AblationError(f"the base has no result with seed {seed} to compare the rows with")
    scores = {
        one.name: compute_score(found[seed], base)
        for one in experiments[1:]
        if seed in (found := find_results(records, one))
    }
    rows = [one for one in experiments[1:] if one.name in scores]
    return sorted(rows, key=lambda one: scores[one.name], reverse=True)[:count]
