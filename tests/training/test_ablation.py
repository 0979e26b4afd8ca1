import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from training.ablation import run_table, train_experiment
from training.ablation_records import Record, Results, choose_best, compute_score, find_results, read_records
from training.ablation_report import format_report, write_report
from training.ablation_shelf import Shelf
from training.ablation_table import (
    SHIPPED_TABLE,
    AblationError,
    Direction,
    Experiment,
    deep_merge,
    load_table,
)
from training.cli import app
from training.config import Task
from training.data.datasets import MiniSets
from training.models.backbone import WeightsError

SEGMENTATION, DETECTION, CLASSIFICATION = Task
TINY = """
[base]
preset = "tiny"
input_size = 64
holdout = 0.34
model = { backbone_weights = "random", neck = "fpn", neck_channels = 16, head = "branches" }
[base.stages]
segmentation = { epochs = 1, batch_size = 2, augment = { scale = [0.5, 2.0], colour = 0.3 } }
detection = { epochs = 1, batch_size = 2 }
classification = { epochs = 1, batch_size = 2 }

[[rows]]
name = "pan"
direction = "scales"
sentence = "A bottom-up path"
overrides.model.neck = "pan"
"""
MORE = """
[[rows]]
name = "ewc"
direction = "forgetting"
sentence = "EWC | constant"
[rows.overrides.stages.detection.ewc]
strength = { segmentation = 10 }

[[rows]]
name = "mosaic"
direction = "data"
sentence = "Mosaics"
overrides.stages.detection.augment.mosaic = 0.5
"""


def read_table(folder: Path, text: str) -> tuple[Experiment, ...]:
    path = folder / "table.toml"
    path.write_text(text, encoding="utf-8")
    return load_table(path)


@pytest.fixture
def table(tmp_path: Path) -> tuple[Experiment, ...]:
    """The base, `pan`, `ewc` and `mosaic`."""
    return read_table(tmp_path, TINY + MORE)


def make_results(*end: float, own: tuple[float, ...] | None = None) -> Results:
    """Mean IoU, mAP@0.5 and top-1 at the end, and after the own stage; the same if not given."""

    def by_task(values: tuple[float, ...]) -> dict[Task, dict[str, float]]:
        return {
            task: {name: value} for task, name, value in zip(Task, ("mean_iou", "map_50", "top_1"), values, strict=True)
        }

    return Results(
        own=by_task(own or end),
        end=by_task(end),
        drops={SEGMENTATION: 0, DETECTION: 0},
        held_out=dict.fromkeys(Task, 24),
        seconds=240.4,
        parameters=1_000_000,
        ms_per_image=12.0,
    )


class Trainer:
    """Leaves a file in the row's folder and answers at once; fails where it is told to."""

    def __init__(self, fail: Collection[str] = (), error: BaseException | None = None, **ends: float) -> None:
        self.fail = fail
        self.error = error or RuntimeError("the loss became\nnan")
        self.ends = ends
        self.calls: list[tuple[str, int]] = []

    def __call__(self, experiment: Experiment, seed: int, out: Path) -> Results:
        self.calls.append((experiment.name, seed))
        out.mkdir(parents=True)
        (out / "checkpoint.pt").touch()
        if experiment.name in self.fail:
            raise self.error
        return make_results(self.ends.get(experiment.name, 0.3), 0.1, 0.8)


def run_all(table: tuple[Experiment, ...], folder: Path, train: Trainer, **changes: Any) -> list[str]:  # noqa: ANN401 - arguments of run_table
    """Run the table; give back what was told."""
    told: list[str] = []
    options: dict[str, Any] = {"seeds": [0], "best": None, "keep": False, "machine": "a toaster", **changes}
    run_table(table, folder / "ablation.jsonl", train, work=folder / "work", tell=told.append, **options)
    return told


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ablation.jsonl").read_text(encoding="utf-8").splitlines()]


# The table


def test_a_deep_merge_replaces_leaves_and_lists_and_leaves_its_arguments_as_they_were() -> None:
    base = {"a": {"b": {"c": 1, "d": [1, 2]}, "e": 2}, "f": 3}
    changes = {"a": {"b": {"d": [3], "g": {"h": 4}}}, "f": {"i": 5}}
    merged = deep_merge(base, changes)
    assert merged == {"a": {"b": {"c": 1, "d": [3], "g": {"h": 4}}, "e": 2}, "f": {"i": 5}}
    assert base == {"a": {"b": {"c": 1, "d": [1, 2]}, "e": 2}, "f": 3}
    assert changes == {"a": {"b": {"d": [3], "g": {"h": 4}}}, "f": {"i": 5}}


def test_a_row_changes_what_it_names_and_keeps_the_rest_of_the_base(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, mosaic = (experiment.config for experiment in table)
    assert base.model.neck == "fpn"
    assert pan == base.model_copy(update={"model": base.model.model_copy(update={"neck": "pan"})})
    assert ewc.stages[1].ewc.strength == {SEGMENTATION: 10}
    assert (ewc.stages[0], ewc.stages[2], ewc.model) == (base.stages[0], base.stages[2], base.model)
    assert mosaic.stages[1].augment.mosaic == 0.5
    assert [stage.task for stage in mosaic.stages] == list(Task)


def test_the_shipped_table_is_valid_and_asks_about_every_direction() -> None:
    base, *rows = load_table(SHIPPED_TABLE)
    assert {row.direction for row in rows} == set(Direction)
    assert [stage.task for stage in base.config.stages] == list(Task)
    assert base.config.holdout >= 0.1
    assert all(row.config.model.backbone_weights == "imagenet" for row in rows)


@pytest.mark.parametrize("experiment", load_table(SHIPPED_TABLE), ids=lambda experiment: experiment.name)
def test_every_stage_of_every_shipped_row_has_something_to_learn(experiment: Experiment) -> None:
    shared = ("backbone", "neck", "stem") if experiment.config.model.head == "unified" else ("backbone", "neck")
    for stage in experiment.config.stages:
        own = () if experiment.config.model.head == "unified" else (str(stage.task),)
        assert any(stage.lr_factors.get(part, 1) for part in (*shared, *own))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('model.neck = "pan"', "model.depth = 2", r"pan: model\.depth: Extra inputs"),
        ('model.neck = "pan"', 'model.neck = "bridge"', r"pan: model\.neck: Input should be"),
        ('model.neck = "pan"', "stages.segmentation.augment.mosaic = 0.5", "pan: stages.0: .* mosaic is for detection"),
        ('model.neck = "pan"', "stages.counting.epochs = 2", "Input should be 'segmentation'"),
        ('model.neck = "pan"', 'model.neck = "fpn"', "pan: the same config as 'base'"),
        ('model.neck = "pan"', "holdout = 0.2", "pan: rows are measured on the pictures that the base"),
        ('direction = "scales"', 'direction = "colour"', r"rows\.0\.direction: Input should be"),
        ('direction = "scales"', 'direction = "scales"\nspeed = 1', r"rows\.0\.speed: Extra inputs"),
        ('name = "pan"', 'name = "base"', "two rows are called 'base'"),
        ('name = "pan"', 'name = "../pan"', r"rows\.0\.name: String should match"),
        ("holdout = 0.34", "holdout = 0.05", "a holdout of 0.05; wanted 0.1 or more"),
        ("detection = { epochs = 1, batch_size = 2 }", "", "the base learns 2 tasks"),
        ("[base]", "[base", "table.toml: "),
    ],
)
def test_a_table_with_a_fault_is_refused_in_one_line_that_names_it(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert TINY.count(old) == 1
    with pytest.raises(AblationError, match=complaint) as caught:
        read_table(tmp_path, TINY.replace(old, new))
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_the_config_without_its_seed(table: tuple[Experiment, ...]) -> None:
    values = table[1].config.model_dump(mode="json")
    del values["seed"]
    assert table[1].digest == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    assert len({experiment.digest for experiment in table}) == len(table)


# The run


def test_every_row_is_a_line_and_a_second_call_runs_nothing(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    first, second = Trainer(pan=0.4), Trainer()
    run_all(table, tmp_path, first)
    lines = read_lines(tmp_path)
    assert [(line["name"], line["direction"]) for line in lines] == [
        ("base", "base"),
        ("pan", "scales"),
        ("ewc", "forgetting"),
        ("mosaic", "data"),
    ]
    assert [line["digest"] for line in lines] == [experiment.digest for experiment in table]
    assert {(line["seed"], line["machine"]) for line in lines} == {(0, "a toaster")}
    assert lines[1]["results"]["end"]["segmentation"] == {"mean_iou": 0.4}
    assert not any("error" in line for line in lines)
    run_all(table, tmp_path, second)
    assert second.calls == []
    assert read_lines(tmp_path) == lines


def test_another_seed_or_another_config_is_another_run(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    run_all(table, tmp_path, Trainer())
    reseeded, changed = Trainer(), Trainer()
    run_all(table[:2], tmp_path, reseeded, seeds=[0, 1])
    assert reseeded.calls == [("base", 1), ("pan", 1)]
    other = read_table(tmp_path, TINY.replace('neck = "pan"', "kernel_size = 5"))
    run_all(other, tmp_path, changed)
    assert changed.calls == [("pan", 0)]
    assert find_results(read_records(tmp_path / "ablation.jsonl"), table[1]).keys() == {0, 1}


def test_a_row_that_fails_is_a_sentence_and_is_tried_again(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    told = run_all(table, tmp_path, Trainer(fail=["pan"]))
    failed = read_lines(tmp_path)[1]
    assert failed["error"] == "RuntimeError: the loss became nan"
    assert "results" not in failed
    assert any(line.startswith("pan, seed 0") and "the loss became nan" in line for line in told)
    assert [line["name"] for line in read_lines(tmp_path)] == ["base", "pan", "ewc", "mosaic"]
    again = Trainer()
    run_all(table, tmp_path, again)
    assert again.calls == [("pan", 0)]
    assert 0 in find_results(read_records(tmp_path / "ablation.jsonl"), table[1])


def test_a_row_that_is_killed_leaves_no_line_and_is_begun_anew(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_all(table, tmp_path, Trainer(fail=["pan"], error=KeyboardInterrupt()))
    assert [line["name"] for line in read_lines(tmp_path)] == ["base"]
    assert [folder.name for folder in (tmp_path / "work").iterdir()] == ["pan-0"]
    again = Trainer()
    run_all(table, tmp_path, again)
    assert [name for name, _ in again.calls] == ["pan", "ewc", "mosaic"]


def test_what_no_row_can_do_without_stops_the_table(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    train = Trainer(fail=["base"], error=WeightsError("no such file"))
    with pytest.raises(WeightsError):
        run_all(table, tmp_path, train)
    assert len(train.calls) == 1
    assert not (tmp_path / "ablation.jsonl").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_the_folder_of_a_row_goes_when_its_line_is_written_unless_kept(
    table: tuple[Experiment, ...], tmp_path: Path, *, keep: bool
) -> None:
    run_all(table, tmp_path, Trainer(fail=["ewc"]), keep=keep)
    left = {folder.name for folder in (tmp_path / "work").iterdir()}
    assert left == ({"base-0", "pan-0", "ewc-0", "mosaic-0"} if keep else set())


def test_a_row_whose_package_is_not_there_is_left_out_with_the_reason(tmp_path: Path) -> None:
    table = read_table(tmp_path, TINY.replace('name = "pan"', 'name = "pan"\nneeds = ["no_such_package"]'))
    train = Trainer()
    told = run_all(table, tmp_path, train)
    assert train.calls == [("base", 0)]
    assert any(line.startswith("pan") and "no_such_package" in line for line in told)
    assert row_of(format_report(table, []), "pan")[2] == "not run yet; needs no_such_package"


def test_a_score_by_hand() -> None:
    base = make_results(0.4, 0.1, 0.8)
    assert compute_score(base, base) == 1
    assert compute_score(make_results(0.2, 0.2, 0.8), base) == pytest.approx((0.5 + 2 + 1) / 3)
    assert compute_score(make_results(0.5, 0.3, 0.4), make_results(0.4, 0, 0.8)) == pytest.approx((1.25 + 0.5) / 2)


def test_only_the_base_and_the_best_rows_get_further_seeds(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    train = Trainer(pan=0.2, ewc=0.5, mosaic=0.4)
    run_all(table, tmp_path, train, seeds=[0, 1], best=2)
    assert train.calls[4:] == [("base", 1), ("ewc", 1), ("mosaic", 1)]
    best = choose_best(table, read_records(tmp_path / "ablation.jsonl"), seed=0, count=1)
    assert [experiment.name for experiment in best] == ["ewc"]


def test_there_are_no_best_rows_without_a_base(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    with pytest.raises(AblationError, match="the base has no result with seed 0"):
        run_all(table, tmp_path, Trainer(fail=["base"]), seeds=[0, 1], best=2)


def test_a_line_that_is_no_result_is_an_error_that_names_it(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    run_all(table, tmp_path, Trainer())
    with (tmp_path / "ablation.jsonl").open("a") as file:
        file.write('{"name": "pan", "dir')
    with pytest.raises(AblationError, match="line 5, is no result"):
        run_all(table, tmp_path, Trainer())


# The report


def make_record(experiment: Experiment, results: Results | None, *, seed: int = 0, error: str | None = None) -> Record:
    return Record(
        name=experiment.name,
        direction=experiment.direction,
        seed=seed,
        digest=experiment.digest,
        git_commit="0123456789ab",
        machine="a toaster",
        results=results,
        error=error,
    )


def row_of(text: str, name: str) -> list[str]:
    """The cells of a row of the report."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_report_of_rows_errors_and_gaps_by_hand(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, _ = table
    text = format_report(
        table,
        [
            make_record(base, make_results(0.4, 0.1, 0.8, own=(0.5, 0.1, 0.8))),
            make_record(pan, make_results(0.42, 0.09, 0.8, own=(0.4, 0.12, 0.8))),
            make_record(ewc, None, error="RuntimeError: a | b"),
        ],
    )
    assert row_of(text, "base")[2:] == [
        "0.5000 → 0.4000 (20.0 %)",
        "0.1000 → 0.1000 (0.0 %)",
        "0.8000",
        "",
        "0",
        "240",
    ]
    assert row_of(text, "pan")[1:] == [
        "A bottom-up path",
        "0.4000 → 0.4200 (-5.0 %)",
        "0.1200 → 0.0900 (25.0 %)",
        "0.8000",
        "+0.0200, -0.0100, +0.0000",
        "0",
        "240",
    ]
    assert row_of(text, "ewc")[1:3] == [r"EWC \| constant", r"failed with seed 0: RuntimeError: a \| b"]
    assert row_of(text, "mosaic")[2] == "not run yet"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## The base", "## Scales", "## Forgetting", "## Data"]
    for fact in ("unihead-train ablate", "0123456789ab", "a toaster", "34 %", "0.042 of top-1"):
        assert fact in text


def test_seeds_are_averaged_and_compared_with_the_base_of_the_same_seeds(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, _ = table
    text = format_report(
        table,
        [
            make_record(base, make_results(0.4, 0.1, 0.8)),
            make_record(base, make_results(0.2, 0.1, 0.8), seed=1),
            make_record(pan, make_results(0.5, 0.1, 0.8)),
            make_record(pan, make_results(0.4, 0.3, 0.8), seed=1),
            make_record(ewc, make_results(0.4, 0.1, 0.8), seed=1),
            make_record(ewc, None, error="RuntimeError: no"),
        ],
    )
    assert row_of(text, "pan")[2:7] == [
        "0.4500 → 0.4500 (0.0 %)",
        "0.2000 → 0.2000 (0.0 %)",
        "0.8000",
        "+0.1500, +0.1000, +0.0000",
        "0, 1",
    ]
    assert row_of(text, "ewc")[5:7] == ["+0.2000, +0.0000, +0.0000", "1; 0 failed: RuntimeError: no"]


def test_what_reached_nothing_has_nothing_to_lose(table: tuple[Experiment, ...]) -> None:
    text = format_report(table, [make_record(table[0], make_results(0.4, 0.01, 0.8, own=(0.4, 0, 0.8)))])
    assert row_of(text, "base")[3] == "0.0000 → 0.0100"


def test_a_result_of_another_config_is_not_shown(table: tuple[Experiment, ...]) -> None:
    stale = make_record(table[1], make_results(0.9, 0.9, 0.9)).model_copy(update={"digest": "0"})
    assert row_of(format_report(table, [stale]), "pan")[2] == "not run yet"


def test_the_plot_is_drawn_once_there_is_something_to_compare(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    base, pan, *_ = table
    records = [make_record(base, make_results(0.4, 0.1, 0.8))]
    assert "No row has been run yet" in write_report(table, [], tmp_path / "new").read_text(encoding="utf-8")
    assert "![" not in write_report(table, records, tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "pictures").exists()
    records.append(make_record(pan, make_results(0.5, 0.05, 0.8)))
    path = write_report(table, records, tmp_path)
    assert path == tmp_path / "ablation.md"
    assert "](pictures/ablation.png)" in path.read_text(encoding="utf-8")
    with Image.open(tmp_path / "pictures" / "ablation.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or ()}
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours


# From the pictures to the report


@pytest.mark.slow
def test_a_row_is_trained_and_measured_on_the_pictures_that_are_held_out(sets: MiniSets, tmp_path: Path) -> None:
    base, *_ = read_table(tmp_path, TINY)
    results = train_experiment(
        base,
        3,
        tmp_path / "run",
        sets=sets,
        device=torch.device("cpu"),
        weights=None,
        console=Console(quiet=True),
        shelf=Shelf(tmp_path / "shared", [base], [3]),
    )
    assert results.held_out == dict.fromkeys(Task, 2)
    assert results.own.keys() == results.end.keys() == set(Task)
    assert results.own[CLASSIFICATION] == results.end[CLASSIFICATION]
    assert 2 * results.end[CLASSIFICATION]["top_1"] in {0, 1, 2}
    assert results.drops.keys() == {SEGMENTATION, DETECTION}
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (entry for entry in history if entry["kind"] == "evaluation")
    assert results.own[SEGMENTATION].items() <= first["metrics"]["segmentation"].items()
    assert results.end[SEGMENTATION].items() <= last["metrics"]["segmentation"].items()
    assert results.ms_per_image == last["ms_per_image"]
    assert results.seconds == sum(entry["seconds"] for entry in history)
    assert results.parameters > 900_000


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_reports(tiny_sets: Path, tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(TINY)

    def ablate(*more: str) -> str:
        arguments = ["ablate", "--table", "table.toml", "--out", "docs", "--work", "work", "--device", "cpu", *more]
        paths = {"table.toml", "docs", "work"}
        result = CliRunner().invoke(
            app,
            [str(tmp_path / word) if word in paths else word for word in arguments],
            env={"UNIHEAD_DATA": "", "UNIHEAD_BACKBONE_WEIGHTS": "", "COLUMNS": "1000"},
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "seed 0 (2 of 2)" in ablate("--data", str(tiny_sets))
    report = (tmp_path / "docs" / "ablation.md").read_text(encoding="utf-8")
    assert [line["name"] for line in read_lines(tmp_path / "docs")] == ["base", "pan"]
    assert all(
        re.fullmatch(r"[01]\.\d{4} → [01]\.\d{4}( \(-?\d+\.\d %\))?", cell) for cell in row_of(report, "pan")[2:4]
    )
    assert list((tmp_path / "work").iterdir()) == []
    assert "seed 0" not in ablate("--data", str(tiny_sets))
    ablate("--report-only")
    assert (tmp_path / "docs" / "ablation.md").read_text(encoding="utf-8") == report


def test_the_command_says_in_one_sentence_that_there_is_no_such_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["ablate", "--report-only", "--table", str(tmp_path / "absent.toml"), "--out", str(tmp_path / "docs")],
        env={"COLUMNS": "1000"},
    )
    assert result.exit_code == 1
    assert "absent.toml" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "docs").exists()
