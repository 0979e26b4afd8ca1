import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.lab.report.records import EVALUATIONS, evaluation, make_details, make_record
from tests.training.outline import Outline
from training.checkpoint import CHECKPOINT_NAME, CheckpointError, load_checkpoint, save_checkpoint
from training.config import Task
from training.data.datasets import DataSets
from training.data.taxonomy import VOC
from training.lab.report.page import make_page, write_report

SECTIONS = [
    "What was forgotten",
    "Curves",
    "Segmentation",
    "Detection",
    "Classification",
    "Beside the student report",
    "Data",
    "Config",
    "Environment",
    "Times",
]


@pytest.fixture(scope="module")
def page(sets: DataSets) -> str:
    return make_page(make_record(details={"classification": make_details(sets)}), sets)


def test_the_page_has_all_its_parts_and_a_table_of_contents(page: str) -> None:
    outline = Outline(page)
    assert outline.titles == SECTIONS
    assert page.count('href="#') == len(SECTIONS)


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "link", "iframe", "object", "base"} & set(outline.tags)
    assert outline.images
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in outline.images)
    assert not re.search(r"https?:|//cdn|@import|url\(", re.sub(r'base64,[^"]*', "", page))


def test_every_colour_of_a_drawing_is_one_of_the_style_sheet(page: str) -> None:
    style = page.split("<style>")[1].split("</style>", maxsplit=1)[0]
    for name in set(re.findall(r'class="(?:line |dot |key |bar )?(s\d|ink|before|muted|band)', page)):
        assert f".{name}" in style
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)[1:]  # the first is the logo
    assert drawings
    assert not any(re.search(r'(?:fill|stroke)="#', drawing) for drawing in drawings)


def test_the_page_says_what_was_run(page: str) -> None:
    for fact in ("Training report: tiny", "0123abc", "seed 0", "64 px", "12.3 ms per image", "1.27 M"):
        assert fact in page


def test_the_figures_stand_beside_those_of_the_student_report(page: str) -> None:
    outline = Outline(page)
    assert outline.row("miou_eps_per_image")[1:3] == ["0.954 → 0.975", "0.9500 → 0.9500"]
    assert outline.row("honest mean IoU")[1:3] == ["not given", "0.4000 → 0.3600"]
    assert outline.row("mAP@0.5")[1:3] == ["0.0015 → 0.000", "0.0000 → 0.1000"]
    assert outline.row("top-1")[1:3] == ["0.800 → 0.533", "0.8000 → 0.8000"]
    assert outline.row("parameters", "1.27 M")[2] == "1.27 M"


@pytest.mark.parametrize(
    ("end", "is_finished", "verdict"),
    [
        (0.40, True, "Nothing was forgotten."),
        (0.36, True, "Forgotten: segmentation by 10.0 %."),
        (0.40, False, "The run is not finished."),
        (0.36, False, "Forgotten: segmentation by 10.0 %."),
    ],
)
def test_the_verdict_comes_first(end: float, is_finished: bool, verdict: str) -> None:
    evaluations = [*EVALUATIONS[:2], evaluation(Task.CLASSIFICATION, end, 0.1, 0.8)]
    assert f"<strong>{verdict}</strong>" in make_page(make_record(evaluations, is_finished=is_finished), None)


def test_one_stage_forgets_nothing() -> None:
    page = make_page(make_record([evaluation(Task.SEGMENTATION, 0.4)]), None)
    assert "One stage: nothing could be forgotten." in page


@pytest.mark.slow
def test_the_numbers_of_a_run_are_those_of_its_files(finished_run: Path, sets: DataSets, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    path = write_report(folder, sets)
    assert path == folder / "report.html"
    outline = Outline(path.read_text(encoding="utf-8"))
    assert outline.titles == SECTIONS
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = [entry["metrics"] for entry in history if entry["kind"] == "evaluation"]
    cells = [cell for row in outline.rows for cell in row]
    for metrics in measured:
        for values in metrics.values():
            for value in values.values():
                assert any(cell.startswith(f"{value:.4f}") for cell in cells)
    ious = json.loads((folder / "evaluations" / "classification.jsonl").read_text().splitlines()[0])["class_iou"]
    assert ious[0] is not None  # every picture has background
    for name, iou in zip(VOC, ious, strict=True):
        if iou is not None:
            listed = [row for row in outline.rows if row[0] == name and f"{iou:.4f}" in row]
            assert listed or (iou == 0 and f"{name} (" in outline.text)
    assert "learning rate" in outline.text


@pytest.mark.slow
def test_the_same_folder_gives_the_same_page_and_leaves_nothing_beside_it(
    finished_run: Path, sets: DataSets, tmp_path: Path
) -> None:
    pages = []
    for name in ("one", "another"):
        shutil.copytree(finished_run, tmp_path / name)
        before = {entry.name for entry in (tmp_path / name).iterdir()}
        pages.append(write_report(tmp_path / name, sets).read_bytes())
        assert {entry.name for entry in (tmp_path / name).iterdir()} == before | {"report.html"}
    assert pages[0] == pages[1]
    assert len(pages[0]) < 3_000_000


@pytest.mark.slow
def test_a_run_can_be_reported_as_soon_as_a_stage_is_done(finished_run: Path, tmp_path: Path) -> None:
    finished = load_checkpoint(finished_run / CHECKPOINT_NAME)
    shutil.copytree(finished_run / "evaluations", tmp_path / "evaluations")
    save_checkpoint(replace(finished, stage=1, history=finished.history[:4]), tmp_path / CHECKPOINT_NAME)
    outline = Outline(write_report(tmp_path).read_text(encoding="utf-8"))
    assert [title for title in SECTIONS if title not in outline.titles] == ["Detection", "Classification"]
    save_checkpoint(replace(finished, stage=0, history=finished.history[:1]), tmp_path / CHECKPOINT_NAME)
    with pytest.raises(CheckpointError, match="no stage"):
        write_report(tmp_path)
