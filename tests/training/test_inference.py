import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from service.engine.contract import OUTPUT_NAMES, parse_contract
from tests.training.fakes import SIZE, make_branches_config, make_config, make_images, make_model
from tests.training.there import there
from training.checkpoint import Checkpoint
from training.config import Config, InferenceConfig, Task
from training.data.taxonomy import COCO, MINI, VOC
from training.inference import (
    Predictor,
    TorchSession,
    build_engine,
    calibrate_scores,
    compute_weights_sha256,
    make_contract,
    restore_model,
    select_candidates,
    select_detections,
)
from training.models.heads import TaskLogits
from training.models.multitask import MultiTaskModel

CPU = torch.device("cpu")
CONFIG = make_config()


def random_boxes(count: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = 40 * torch.rand(count, 2, generator=generator)
    return torch.cat([corners, corners + 4 + 30 * torch.rand(count, 2, generator=generator)], dim=1)


def select_naively(boxes: Tensor, scores: Tensor, config: InferenceConfig) -> list[tuple[int, int]]:
    """(anchor, label) best first: each is kept unless a kept one of its class overlaps it too much."""
    overlaps = box_iou(boxes, boxes).tolist()
    pairs = [(a, d) for a in range(len(boxes)) for d in range(scores.shape[1]) if scores[a, d] > config.score_floor]
    kept: list[tuple[int, int]] = []
    for anchor, label in sorted(pairs, key=lambda pair: -scores[pair].item()):
        if all(label != other or overlaps[anchor][rival] <= config.iou_threshold for rival, other in kept):
            kept.append((anchor, label))
    return kept[: config.max_detections]


def select(boxes: Tensor, scores: Tensor, config: InferenceConfig) -> tuple[Tensor, Tensor, Tensor]:
    """What is found in one picture with boxes [A, 4] and scores [A, D]."""
    (candidates,), (best,), (labels,) = select_candidates(boxes[None], scores[None], 1000)
    return select_detections(candidates, best, labels, config)


class Fixed(MultiTaskModel):
    """A network that always says the same."""

    def __init__(self, logits: TaskLogits) -> None:
        super().__init__(CONFIG.model, MINI.num_classes)
        self.logits = logits

    def forward(self, images: Tensor) -> TaskLogits:
        assert len(images) == len(there(self.logits.classification))
        return self.logits


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        InferenceConfig(),
        InferenceConfig(iou_threshold=0.2, score_floor=0.01),
        InferenceConfig(iou_threshold=0.8, max_detections=7),
    ],
)
def test_detections_are_selected_as_a_naive_loop_selects_them(seed: int, config: InferenceConfig) -> None:
    boxes = random_boxes(30, seed=seed)
    scores = torch.rand(30, 4, generator=torch.Generator().manual_seed(seed)) ** 8
    expected = select_naively(boxes, scores, config)
    kept_boxes, kept_scores, kept_labels = select(boxes, scores, config)
    assert kept_labels.tolist() == [label for _, label in expected]
    assert kept_scores.tolist() == [scores[pair].item() for pair in expected]
    assert torch.equal(kept_boxes, boxes[[anchor for anchor, _ in expected]])
    assert kept_scores.tolist() == sorted(kept_scores.tolist(), reverse=True)


def test_one_box_may_answer_for_two_classes_but_not_twice_for_one() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.5]])
    _, scores, labels = select(boxes, torch.tensor([[0.9, 0.8], [0.7, 0.85]]), InferenceConfig())
    assert labels.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.85])


def test_nothing_above_the_floor_is_nothing_found() -> None:
    boxes, scores, labels = select(random_boxes(3, seed=0), torch.full((3, 2), 0.001), InferenceConfig())
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def test_answers_before_nms_by_hand() -> None:
    logits = TaskLogits(torch.zeros(1, 85, 2, 2), torch.zeros(1, 21, 2, 2), torch.zeros(1, 10))
    there(logits.detection)[0, 4, 0, 1] = math.log(3)  # confidence 3/4 in the second cell
    there(logits.detection)[0, 5 + 7, 0, 1] = math.log(79)  # class 7 as probable as the other 79 together
    there(logits.segmentation)[0, 15, 1] = 1  # person below
    there(logits.classification)[0, 2] = math.log(9)
    dense = Predictor(Fixed(logits), CONFIG)(make_images(1))
    assert dense.scores.shape == dense.labels.shape == (1, 4 * 80)
    assert dense.labels[0, 0].item() == 7
    assert dense.boxes[0, 0].tolist() == [32, 0, 64, 32]
    assert dense.scores[0].tolist() == pytest.approx(
        [3 / 4 * 1 / 2] + [1 / 2 / 80] * 3 * 80 + [3 / 4 * 1 / 2 / 79] * 79
    )
    corners = [[0, 0, 32, 32], [0, 32, 32, 64], [32, 32, 64, 64]]
    assert dense.boxes[0, 1:241].unique(dim=0).tolist() == corners
    assert sorted(dense.labels[0, 241:].tolist()) == [*range(7), *range(8, 80)]
    assert (dense.mask.dtype, dense.mask.shape) == (torch.uint8, (1, 16, 16))
    assert dense.mask[0, -4:].unique().tolist() == [15]
    assert dense.mask[0, :4].unique().tolist() == [0]
    assert dense.class_probs[0].tolist() == pytest.approx([1 / 18, 1 / 18, 1 / 2, *[1 / 18] * 7])


CALIBRATED = {"score_scale": 1.7, "score_bias": -0.8, "class_temperature": 1.6}


@pytest.mark.parametrize("make", [make_config, make_branches_config])
def test_calibration_changes_scores_and_probabilities_and_nothing_else(make: Callable[..., Config]) -> None:
    model, images = make_model(make().model).eval(), make_images(2)
    raw, calibrated = (Predictor(model, make(inference=more))(images) for more in ({}, CALIBRATED))
    expected = (1.7 * torch.logit(raw.scores.double()) - 0.8).sigmoid()
    torch.testing.assert_close(calibrated.scores.double(), expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(calibrated.scores, raw.scores)
    powers = raw.class_probs ** (1 / 1.6)
    torch.testing.assert_close(calibrated.class_probs, powers / powers.sum(dim=1, keepdim=True))
    for name in ("boxes", "labels", "mask"):
        assert torch.equal(getattr(calibrated, name), getattr(raw, name))


def test_scores_at_the_ends_stay_there() -> None:
    ends = calibrate_scores(torch.tensor([0.0, 1.0]), InferenceConfig(**CALIBRATED))
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize("calibration", [{}, CALIBRATED, {"score_scale": 0.5, "score_bias": 2.0}])
def test_the_floor_counts_before_calibration_so_that_the_same_boxes_are_found(calibration: dict[str, float]) -> None:
    boxes, scores = random_boxes(30, seed=1), torch.rand(30, 4, generator=torch.manual_seed(1)) ** 8
    raw = InferenceConfig(score_floor=0.01, max_detections=1000)
    config = InferenceConfig(score_floor=0.01, max_detections=1000, **calibration)
    kept, before, labels = select(boxes, scores, raw)
    found, after, found_labels = select(boxes, calibrate_scores(scores, config), config)
    assert len(kept) < scores.numel()
    assert torch.equal(found, kept)
    assert torch.equal(found_labels, labels)
    torch.testing.assert_close(after, calibrate_scores(before, config))


def test_the_candidates_are_the_best_pairs_of_a_point_and_a_class() -> None:
    boxes = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    scores = torch.tensor([[[0.1, 0.9], [0.5, 0.4], [0.8, 0.0]], [[0.0, 0.0], [0.3, 0.7], [0, 0.2]]])
    kept_boxes, kept_scores, kept_labels = select_candidates(boxes, scores, 3)
    torch.testing.assert_close(kept_scores, torch.tensor([[0.9, 0.8, 0.5], [0.7, 0.3, 0.2]]))
    assert kept_labels.tolist() == [[1, 0, 0], [1, 0, 1]]
    assert torch.equal(kept_boxes, torch.stack([boxes[0, [0, 2, 1]], boxes[1, [1, 1, 2]]]))


def test_of_many_candidates_the_best_go_on_to_nms_and_lie_inside_the_input() -> None:
    config = make_branches_config(inference={"max_candidates": 20})
    model, images = make_model(config.model).eval(), make_images(2)
    everything = Predictor(model, make_branches_config(inference={"max_candidates": 10**6}))(images)
    assert everything.boxes.shape == (2, (8 * 8 + 4 * 4 + 2 * 2) * 80, 4)
    dense = Predictor(model, config)(images)
    assert (dense.boxes.shape, dense.scores.shape, dense.labels.shape) == ((2, 20, 4), (2, 20), (2, 20))
    torch.testing.assert_close(dense.scores, everything.scores[:, :20])
    assert ((dense.boxes >= 0) & (dense.boxes <= SIZE)).all()
    assert torch.equal(dense.mask, everything.mask)
    assert torch.equal(dense.class_probs, everything.class_probs)


def run(session: TorchSession, images: Tensor) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return session.run(images.numpy())


def test_the_session_answers_with_the_arrays_of_the_contract() -> None:
    outputs = run(TorchSession(make_model(), CONFIG, CPU), make_images(2))
    assert tuple(outputs) == OUTPUT_NAMES
    assert [outputs[name].shape for name in OUTPUT_NAMES] == [
        (2, 100, 4),
        (2, 100),
        (2, 100),
        (2,),
        (2, SIZE // 4, SIZE // 4),
        (2, 10),
    ]
    assert [str(outputs[name].dtype) for name in ("boxes", "labels", "mask")] == ["float32", "int64", "uint8"]
    np.testing.assert_allclose(outputs["class_probs"].astype(float).sum(axis=1), 1, rtol=1e-5)


def test_the_session_counts_what_it_found_and_pads_the_rest_with_zeros() -> None:
    logits = TaskLogits(torch.full((2, 85, 2, 2), -20.0), torch.zeros(2, 21, 2, 2), torch.zeros(2, 10))
    there(logits.detection)[0, 4] = torch.tensor([[9.0, 8.0], [7.0, -20.0]])
    there(logits.detection)[0, 5 + 3] = 20  # three cells of the first picture are sure of class 3, none of the second
    there(logits.detection)[:, :4] = 0
    outputs = run(TorchSession(Fixed(logits), CONFIG, CPU), make_images(2))
    assert outputs["num_detections"].tolist() == [3, 0]
    assert outputs["labels"][0, :3].tolist() == [3, 3, 3]
    assert outputs["boxes"][0, :3].tolist() == [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64]]
    scores = outputs["scores"][0].astype(float)
    assert scores[0] > scores[1] > scores[2] > 0.99
    for name in ("boxes", "scores", "labels"):
        assert not outputs[name][0, 3:].any()
        assert not outputs[name][1].any()


def test_the_engine_gives_each_picture_the_answer_it_has_alone() -> None:
    engine = build_engine(make_model(), CONFIG, MINI, CPU, git_commit="unknown")
    squares = list(make_images(3).numpy())
    for together, square in zip(engine.predict(squares), squares, strict=True):
        (alone,) = engine.predict([square])
        np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-3)
        np.testing.assert_allclose(together.class_probs, alone.class_probs, rtol=1e-3)
        assert together.scores.tolist() == sorted(together.scores.tolist(), reverse=True)


@pytest.mark.parametrize("training", [True, False])
def test_the_session_answers_in_evaluation_and_leaves_the_network_as_it_was(training: bool) -> None:
    model = make_model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = run(TorchSession(model, CONFIG, CPU), make_images(2))
    assert model.training is training
    assert model.backbone.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = run(TorchSession(model.eval(), CONFIG, CPU), make_images(2))
    assert all(np.array_equal(first[name], again[name]) for name in OUTPUT_NAMES)


def test_the_hash_of_the_weights_changes_with_any_tensor_and_any_name() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(2), "c": torch.tensor(4)}
    hashes = {compute_weights_sha256(state)}
    for name, value in state.items():
        changed = value.clone()
        changed.view(-1)[-1] += 1
        hashes.add(compute_weights_sha256(state | {name: changed}))
    hashes.add(compute_weights_sha256({"a": state["a"], "b": state["b"], "d": state["c"]}))
    assert len(hashes) == 5
    assert all(len(found) == 64 for found in hashes)


def test_the_hash_of_the_weights_does_not_depend_on_order_or_memory_format() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.manual_seed(0))
    state = {"a": weight, "b": torch.ones(2)}
    other = {"b": torch.ones(2), "a": weight.clone().to(memory_format=torch.channels_last).requires_grad_()}
    assert compute_weights_sha256(other) == compute_weights_sha256(state)


def test_the_contract_says_what_the_network_is() -> None:
    state = make_model().state_dict()
    contract = make_contract(CONFIG, MINI, state, git_commit="0123abc")
    sha256 = compute_weights_sha256(state)
    assert (contract.version, contract.weights_sha256) == (f"tiny-{sha256[:12]}", sha256)
    assert (contract.name, contract.preset, contract.git_commit) == ("unihead", "tiny", "0123abc")
    assert (contract.input_size, contract.mask_stride, contract.detection_strides) == (64, 4, (32,))
    assert (contract.score_floor, contract.iou_threshold, contract.max_detections) == (0.001, 0.5, 100)
    assert contract.segmentation_classes == VOC
    assert contract.detection_classes == COCO
    assert contract.classification_classes[:4] == ("tench", "English springer", "cassette player", "chain saw")
    assert not contract.metrics
    assert (contract.score_threshold, contract.score_scale) == (0.3, 1.0)
    assert (contract.score_bias, contract.class_temperature) == (0.0, 1.0)
    assert parse_contract(contract.to_json()) == contract
    assert dataclasses.is_dataclass(contract)


def test_the_contract_names_the_grids_of_the_head() -> None:
    config = make_branches_config()
    contract = make_contract(config, MINI, make_model(config.model).state_dict(), git_commit="0123abc")
    assert contract.detection_strides == (8, 16, 32)
    assert parse_contract(contract.to_json()) == contract


def test_the_network_has_a_row_for_each_class_name() -> None:
    assert {task: len(MINI.names(task)) for task in Task} == MINI.num_classes
    assert MINI.num_classes == {Task.SEGMENTATION: 21, Task.DETECTION: 80, Task.CLASSIFICATION: 10}


def test_a_network_comes_back_from_its_checkpoint_without_asking_for_imagenet_weights() -> None:
    config = make_config(model={"backbone_weights": "imagenet", "neck_channels": 16, "head_channels": 16})
    state = make_model(seed=9).state_dict()
    restored = restore_model(Checkpoint(config.model_dump(mode="json"), "unknown", state, taxonomy=MINI))
    assert restored.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in restored.state_dict().items())


@pytest.mark.parametrize("changes", [{"neck": "pan"}, {"routing": "dynamic"}, {"classification": "tail"}])
def test_a_network_with_branches_comes_back_as_it_was(changes: dict[str, str]) -> None:
    config = make_branches_config(model={"neck": "fpn", "neck_channels": 16, "head": "branches", **changes})
    state = make_model(config.model.model_copy(update={"backbone_weights": "random"}), seed=9).state_dict()
    restored = restore_model(Checkpoint(config.model_dump(mode="json"), "unknown", state, taxonomy=MINI))
    assert restored.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in restored.state_dict().items())
