import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from docs.tools.show_report_faults import (
    CITED_ROWS,
    LENIENT,
    Row,
    format_table,
    join_by_number,
    main,
    measure_background,
    switch_faults_on,
)
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.pictures.imaging import letterbox
from tests.training.fakes import Answer, KnownSession, make_config
from tests.training.make_sets import write_tiny_sets
from tests.training.there import there
from training.data.datasets import DataError, load_image, read_mask
from training.data.sources import read_data
from training.data.taxonomy import COCO, MINI, VOID
from training.inference import make_contract

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments.md"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic sets, whose classes have another number in each split; not to be changed."""
    return write_tiny_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def contract() -> ModelContract:
    return make_contract(make_config(input_size=128), MINI, {}, git_commit="unknown")


def engine_that_knows_the_boxes(root: Path, contract: ModelContract) -> Engine:
    """Every box of val with its right class, on masks of nothing but background."""
    side = contract.input_size // contract.mask_stride
    nothing = np.zeros((side, side), dtype=np.uint8)
    answers = {}
    for sample in there(read_data(root).detection).val:
        square, place = letterbox(load_image(sample.image), contract.input_size, contract.letterbox.fill)
        answers[square.tobytes()] = Answer(nothing, place.boxes_to_input(sample.boxes), sample.labels.tolist())
    return Engine(KnownSession(Answer(nothing), answers), contract)


def renumber_train(root: Path, ids: dict[str, int]) -> None:
    """Replace the table of train by this one; its annotations, which nothing here reads, go."""
    path = root / "mini_coco_det" / "train" / "labels.json"
    document = json.loads(path.read_text())
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    path.write_text(json.dumps(document | {"categories": categories, "annotations": []}))


def test_a_detector_that_is_right_finds_everything_by_name_and_nothing_by_number(
    root: Path, contract: ModelContract
) -> None:
    row = switch_faults_on(engine_that_knows_the_boxes(root, contract), root)[0]
    expected = Row("classes joined by number (3 differ)", "mAP@0.5", "1.0000", "0.0000", "0.0015 → 0.000")
    assert row == expected


def test_where_the_numbers_agree_joining_by_them_does_no_harm(tmp_path: Path, contract: ModelContract) -> None:
    root = write_tiny_sets(tmp_path)
    renumber_train(root, {"cat": 2, "dog": 3, "person": 1})  # as in val
    row = switch_faults_on(engine_that_knows_the_boxes(root, contract), root)[0]
    assert row[:4] == ("classes joined by number (0 differ)", "mAP@0.5", "1.0000", "1.0000")


def test_a_class_of_val_becomes_what_its_number_means_in_train(root: Path) -> None:
    labels = join_by_number(root / "mini_coco_det", COCO)
    became = {COCO[i]: COCO[label] for i, label in enumerate(labels.tolist()) if label != i}
    assert became == {"cat": "dog", "dog": "person", "person": "cat"}  # val has them as 2, 3, 1; train as 1, 2, 3


def test_a_number_that_train_lacks_is_named(tmp_path: Path) -> None:
    root = write_tiny_sets(tmp_path)
    renumber_train(root, {"cat": 1, "dog": 2, "person": 7})
    with pytest.raises(DataError, match=r"no classes with the numbers \[3\] of val"):
        join_by_number(root / "mini_coco_det", COCO)


def test_nothing_but_background_looks_good_to_the_lenient_metric_alone(root: Path, contract: ModelContract) -> None:
    samples = there(read_data(root).segmentation).val
    masks = [read_mask(sample.mask, 21) for sample in samples]
    shares = [np.mean(mask[mask != VOID] == 0) for mask in masks]
    present = [len(set(mask.flat) - {VOID}) for mask in masks]
    background = sum((mask == 0).sum() for mask in masks) / sum((mask != VOID).sum() for mask in masks)
    honest = background / len({value for mask in masks for value in mask.flat} - {VOID})
    # The background's share, 0 for each class that is there, 1 for each that is not.
    lenient = np.mean([(share + 21 - count) / 21 for share, count in zip(shares, present, strict=True)])
    assert measure_background(samples, 21) == pytest.approx((honest, lenient), abs=1e-6)
    rows = switch_faults_on(engine_that_knows_the_boxes(root, contract), root)[1:3]
    assert [row[0] for row in rows] == [LENIENT, LENIENT]
    # This engine masks nothing either, so that both rows say the same.
    assert {row[2:4] for row in rows} == {(f"{honest:.4f}", f"{lenient:.4f}")}
    assert honest < 0.4
    assert lenient > 0.9


@pytest.mark.parametrize("cited", CITED_ROWS, ids=lambda cited: f"{cited[0]}, {cited[1]}")
def test_the_cited_figures_stand_in_the_experiments(cited: tuple[str, ...]) -> None:
    fault, figure, *values = cited[:4]
    found = re.search(r"lambda (\S+), not (\S+), (\d+) px", fault)
    assert found
    stronger, weaker, pixels = found.groups()
    text = EXPERIMENTS.read_text(encoding="utf-8").replace("*", "")
    column = 4 if figure == "top-1" else 3
    for strength, value in zip((weaker, stronger), values, strict=True):
        (line,) = re.findall(rf"^\| {re.escape(strength)} \| {pixels} px, .*$", text, re.MULTILINE)
        assert line.strip("| ").split(" | ")[column].split(" → ")[0] == value


def test_the_table_is_markdown() -> None:
    table = format_table([Row("f", "mIoU", "0.1", "0.9", "not given")])
    assert table.splitlines()[2] == "| f | mIoU | 0.1 | 0.9 | not given |"
    assert {line.count("|") for line in table.splitlines()} == {6}


def test_the_embedded_model_is_measured_unless_another_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--data", str(root)])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3 + len(CITED_ROWS)
    with pytest.raises(SystemExit, match=r"absent\.onnx: the model file cannot be read"):
        main(["--data", str(root), "--model", str(tmp_path / "absent.onnx")])
    shutil.copytree(root / "mini_coco_det", tmp_path / "boxes" / "mini_coco_det")
    with pytest.raises(SystemExit, match="has detection; wanted segmentation and detection"):
        main(["--data", str(tmp_path / "boxes")])
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="neither it nor a folder in it is a data set"):
        main(["--data", str(tmp_path / "none")])
