import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from tests.training.lab.ablation.tables import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    TINY,
    read_lines,
    read_table,
    row_of,
)
from training.cli import app
from training.config import Task
from training.data.datasets import DataSets
from training.lab.ablation.run import RowTrainer
from training.lab.ablation.shelf import Shelf


@pytest.mark.slow
def test_a_row_is_trained_and_measured_on_the_pictures_that_are_held_out(sets: DataSets, tmp_path: Path) -> None:
    base, *_ = read_table(tmp_path, TINY)
    shelf = Shelf(tmp_path / "shared", [base], [3])
    train = RowTrainer(sets, torch.device("cpu"), weights=None, console=Console(quiet=True), shelf=shelf)
    results = train(base, 3, tmp_path / "run")
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
