from pathlib import Path

import pytest

from tests.training.lab.ablation.tables import TINY, Trainer, make_results, read_lines, read_table, row_of, run_all
from training.lab.ablation.records import choose_best, compute_score, find_results, read_records
from training.lab.ablation.report import format_report
from training.lab.ablation.table import (
    AblationError,
    Experiment,
)
from training.models.backbone import WeightsError


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
