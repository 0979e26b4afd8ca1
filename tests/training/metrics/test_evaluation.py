import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from service.engine.contract import ModelContract
from service.engine.engine import Engine, load_engine
from service.pictures.imaging import letterbox
from tests.service.fakes import GOLDEN
from tests.service.fakes import make_contract as make_service_contract
from tests.service.onnx_models import write_tiny_model
from tests.training.fakes import Answer, KnownSession, make_config, make_model
from tests.training.there import there
from training.checkpoint import Checkpoint, save_checkpoint
from training.cli import app
from training.config import Task
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DataSets,
    DetectionSample,
    SegmentationSample,
    load_image,
    read_mask,
)
from training.data.feed.dataset import Sample
from training.data.taxonomy import MINI, VOID
from training.data.transforms import letterbox_mask
from training.inference import build_engine, make_contract
from training.metrics.bootstrap import Interval, bootstrap_interval
from training.metrics.evaluation import (
    PRIMARY_METRIC,
    evaluate_task,
    measure_ms_per_image,
    measure_task,
    predict_samples,
)

EMBEDDED = GOLDEN.parent / "unihead.onnx"


def contract_for(input_size: int, mask_stride: int) -> ModelContract:
    config = make_config(input_size=input_size, inference={"mask_stride": mask_stride})
    return make_contract(config, MINI, {}, git_commit="unknown")


def all_background(contract: ModelContract) -> Answer:
    side = contract.input_size // contract.mask_stride
    return Answer(np.zeros((side, side), dtype=np.uint8))


def truth(sample: Sample, contract: ModelContract, *, as_xywh: bool = False) -> tuple[bytes, Answer]:
    """The square of a picture, and the answer that is right for it."""
    image = load_image(sample.image)
    square, place = letterbox(image, contract.input_size, contract.letterbox.fill)
    answer = all_background(contract)
    if isinstance(sample, SegmentationSample):
        ids = letterbox_mask(read_mask(sample.mask, 21), place, size=contract.input_size, stride=contract.mask_stride)
        return square.tobytes(), Answer(np.where(ids == VOID, np.uint8(0), ids))
    if isinstance(sample, DetectionSample):
        boxes = place.boxes_to_input(sample.boxes)
        if as_xywh:
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return square.tobytes(), Answer(answer.mask, boxes, sample.labels.tolist())
    return square.tobytes(), Answer(answer.mask, class_id=sample.label)


def engine_that_knows(sets: DataSets, contract: ModelContract, *, as_xywh: bool = False) -> Engine:
    known = dict(truth(sample, contract, as_xywh=as_xywh) for task in Task for sample in sets.split(task).val)
    return Engine(KnownSession(all_background(contract), known), contract)


def evaluate(engine: Engine, sets: DataSets, task: Task, *, batch_size: int = 3) -> dict[str, float]:
    return evaluate_task(engine, task, sets.split(task).val, batch_size=batch_size)


@pytest.mark.parametrize("task", list(Task))
def test_who_answers_the_truth_scores_1_in_everything(sets: DataSets, task: Task) -> None:
    """Through decode, letterbox and back: at 128 px every picture is enlarged, so nothing is lost on the way."""
    metrics = evaluate(engine_that_knows(sets, contract_for(128, 1)), sets, task)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0), abs=1e-6)


@pytest.mark.parametrize("task", list(Task))
def test_the_counted_pictures_give_the_primary_metric_again(sets: DataSets, task: Task) -> None:
    contract = contract_for(64, 4)
    samples = sets.split(task).val
    measured = measure_task(engine_that_knows(sets, contract), task, samples, batch_size=3)
    assert measured.metrics == evaluate(engine_that_knows(sets, contract), sets, task)
    assert measured.counted.num_pictures == len(samples)
    (again,) = measured.counted.estimate(np.ones((1, len(samples)), dtype=np.int64))
    assert again == pytest.approx(measured.metrics[PRIMARY_METRIC[task]], abs=1e-12)


@pytest.mark.parametrize("task", list(Task))
def test_who_answers_the_truth_is_beyond_doubt(sets: DataSets, task: Task) -> None:
    engine = engine_that_knows(sets, contract_for(128, 1))
    counted = measure_task(engine, task, sets.split(task).val, batch_size=3).counted
    interval = bootstrap_interval(counted, rng=np.random.default_rng(0), draws=50)
    assert (interval.low, interval.high) == pytest.approx((1, 1), abs=1e-6)


def test_a_coarse_mask_of_the_truth_loses_borders_only(sets: DataSets) -> None:
    metrics = evaluate(engine_that_knows(sets, contract_for(64, 4)), sets, Task.SEGMENTATION)
    assert 0.75 < metrics["mean_iou"] < 1


def test_boxes_answered_as_xywh_are_wrong(sets: DataSets) -> None:
    metrics = evaluate(engine_that_knows(sets, contract_for(128, 1), as_xywh=True), sets, Task.DETECTION)
    assert metrics["map_50"] < 0.5  # not 0: near the top left corner x2 and the width are close


def test_all_background_scores_what_it_deserves(sets: DataSets) -> None:
    contract = contract_for(64, 4)
    metrics = evaluate(Engine(KnownSession(all_background(contract)), contract), sets, Task.SEGMENTATION)
    masks = [read_mask(sample.mask, 21) for sample in there(sets.segmentation).val]
    classes = [set(mask.flat) - {VOID} for mask in masks]
    background, labelled = (
        np.array([int(part.sum()) for part in parts])
        for parts in ([mask == 0 for mask in masks], [mask != VOID for mask in masks])
    )
    accuracy = background.sum() / labelled.sum()
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy)
    assert metrics["mean_iou"] == pytest.approx(accuracy / len(set.union(*classes)))
    assert metrics["foreground_mean_iou"] == 0
    # Of 21 terms of a picture one is the background's, those of its other classes are 0, the rest 1.
    legacy = [(iou + 21 - len(present)) / 21 for iou, present in zip(background / labelled, classes, strict=True)]
    assert metrics["miou_eps_per_image"] == pytest.approx(np.mean(legacy), abs=1e-6)
    assert metrics["miou_eps_per_image"] > 0.9
    assert metrics["mean_iou"] < 0.4


def test_who_finds_nothing_and_always_says_tench_scores_that(sets: DataSets) -> None:
    contract = contract_for(64, 4)
    engine = Engine(KnownSession(all_background(contract)), contract)
    assert evaluate(engine, sets, Task.DETECTION) == {"map_50": 0, "map_50_95": 0}
    samples = there(sets.classification).val
    tench = sum(sample.label == 0 for sample in samples) / len(samples)
    assert evaluate(engine, sets, Task.CLASSIFICATION)["top_1"] == pytest.approx(tench)


@pytest.mark.parametrize("task", list(Task))
def test_the_batch_size_changes_no_figure(sets: DataSets, task: Task) -> None:
    engine = engine_that_knows(sets, contract_for(64, 4))
    assert evaluate(engine, sets, task, batch_size=1) == evaluate(engine, sets, task, batch_size=3)


def test_pictures_are_answered_in_order_in_batches_with_a_short_last_one(sets: DataSets) -> None:
    contract = contract_for(64, 4)
    session = KnownSession(all_background(contract))
    samples = there(sets.classification).val
    answered = list(predict_samples(Engine(session, contract), samples, batch_size=3))
    assert [sample for sample, _, _ in answered] == list(samples)
    assert session.batches == [3, 1]
    for sample, place, _ in answered:
        assert (place.height, place.width) == load_image(sample.image).shape[:2]


def test_a_mask_of_another_size_than_its_picture_is_an_error_that_names_it(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg")
    Image.new("L", (10, 20)).save(tmp_path / "a.png")
    contract = contract_for(64, 4)
    engine = Engine(KnownSession(all_background(contract)), contract)
    samples = [SegmentationSample(tmp_path / "a.jpg", tmp_path / "a.png")]
    with pytest.raises(DataError, match=r"a\.png"):
        evaluate_task(engine, Task.SEGMENTATION, samples, batch_size=1)


def test_a_damaged_picture_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "broken.JPEG").write_bytes(b"\xff\xd8\xff")
    contract = contract_for(64, 4)
    engine = Engine(KnownSession(all_background(contract)), contract)
    with pytest.raises(DataError, match=r"broken\.JPEG"):
        evaluate_task(engine, Task.CLASSIFICATION, [ClassificationSample(tmp_path / "broken.JPEG", 0)], batch_size=1)


def test_the_time_of_a_picture_is_measured_one_at_a_time_after_a_warm_up() -> None:
    contract = contract_for(64, 4)
    session = KnownSession(all_background(contract))
    assert 0 < measure_ms_per_image(Engine(session, contract), repeats=5) < 1000
    assert session.batches == [1] * 8


def ask(*arguments: object) -> Result:
    environment = {"COLUMNS": "1000", "UNIHEAD_DATA": ""}
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)], env=environment)


def test_an_onnx_file_is_measured_in_all_tasks_as_its_engine_is(tiny_sets: Path, sets: DataSets) -> None:
    result = ask("--data", tiny_sets, "--model", EMBEDDED)
    assert result.exit_code == 0, result.output
    engine = load_engine(EMBEDDED, threads=1)
    wanted = {str(task): pytest.approx(evaluate(engine, sets, task, batch_size=2), abs=1e-3) for task in Task}
    found = json.loads(result.stdout)
    assert {"precision", "recall", "f1"} < found["detection"].pop("at_default_threshold").keys()
    assert found == wanted


def test_a_checkpoint_is_measured_in_the_tasks_that_it_has_learned_with_intervals_where_asked(
    tiny_sets: Path, sets: DataSets, tmp_path: Path
) -> None:
    config, model = make_config(), make_model()
    checkpoint = Checkpoint(config.model_dump(mode="json"), "0123abc", model.state_dict(), stage=2, taxonomy=MINI)
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    asked = ("--data", tiny_sets, "--checkpoint", tmp_path / "checkpoint.pt", "--device", "cpu")
    plain, with_intervals = ask(*asked), ask(*asked, "--bootstrap", "100")
    assert with_intervals.exit_code == 0, with_intervals.output
    found = json.loads(with_intervals.stdout)
    engine = build_engine(model, config, MINI, torch.device("cpu"), git_commit="0123abc")
    for task in (Task.SEGMENTATION, Task.DETECTION):
        counted = measure_task(engine, task, sets.split(task).val, batch_size=4).counted
        interval = Interval(*found[task].pop(f"{PRIMARY_METRIC[task]}_interval_95"))
        assert interval == bootstrap_interval(counted, rng=np.random.default_rng(0), draws=100)
    assert found == json.loads(plain.stdout)
    assert list(found) == ["segmentation", "detection"]


def test_a_file_with_other_classes_than_the_data_is_refused_in_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "other.onnx", make_service_contract())
    result = ask("--data", tiny_sets, "--model", model)
    assert result.exit_code == 1
    sentence = result.stderr.splitlines()[-1]
    assert "other.onnx was made with other classes than the data has: segmentation: only " in sentence
    assert sentence.endswith("name the data that it learned from")


def test_a_file_that_is_missing_is_one_sentence(tiny_sets: Path, tmp_path: Path) -> None:
    result = ask("--data", tiny_sets, "--model", tmp_path / "absent.onnx")
    assert result.exit_code == 1
    assert "absent.onnx: the model file cannot be read" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "wanted one of --checkpoint and --model"),
        (("--checkpoint", "a.pt", "--model", "a.onnx"), "wanted one of --checkpoint and --model"),
        (("--model", "a.onnx", "--device", "cuda"), "an ONNX file is measured as it is served, on the CPU"),
    ],
)
def test_what_is_measured_and_where_is_asked_for_plainly(
    tiny_sets: Path, options: tuple[str, ...], complaint: str
) -> None:
    result = ask("--data", tiny_sets, *options)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())
