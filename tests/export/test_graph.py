import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.graph import append_detections
from service.engine.contract import OUTPUT_NAMES
from training.config import InferenceConfig
from training.inference import select_candidates, select_detections

POINTS, CLASSES, SIZE = 40, 6, 64
CANDIDATES = POINTS * CLASSES


def build_session(config: InferenceConfig) -> ort.InferenceSession:
    """The end of the graph alone, fed with candidates."""
    shapes = {
        "candidate_boxes": [CANDIDATES, 4],
        "candidate_scores": [CANDIDATES],
        "candidate_labels": [CANDIDATES],
        "mask": [1],
        "class_probs": [1],
    }
    kinds = {name: TensorProto.INT64 if name == "candidate_labels" else TensorProto.FLOAT for name in shapes}
    values: dict[str, list[str | int]] = {name: ["batch", *shape] for name, shape in shapes.items()}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{name}"], [name]) for name in shapes],
        "tail",
        [helper.make_tensor_value_info(f"in_{name}", kinds[name], shape) for name, shape in values.items()],
        [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    append_detections(model, config, input_size=SIZE)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def ask(
    config: InferenceConfig, boxes: NDArray[np.float32], scores: NDArray[np.float32]
) -> dict[str, NDArray[np.generic]]:
    candidates = select_candidates(torch.from_numpy(boxes), torch.from_numpy(scores), CANDIDATES)
    filler = np.zeros((len(boxes), 1), dtype=np.float32)
    names = ("in_candidate_boxes", "in_candidate_scores", "in_candidate_labels")
    feed = {name: values.numpy() for name, values in zip(names, candidates, strict=True)}
    feed |= {"in_mask": filler, "in_class_probs": filler}
    return dict(zip(OUTPUT_NAMES, build_session(config).run(OUTPUT_NAMES, feed), strict=True))


def draw_dense(batch: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (batch, POINTS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 24, (batch, POINTS, 2))], axis=2)
    return boxes.astype(np.float32), rng.random((batch, POINTS, CLASSES), dtype=np.float32)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("limit", [10, 100])
def test_the_graph_selects_what_torchvision_selects(batch: int, limit: int) -> None:
    config = InferenceConfig(max_detections=limit, score_floor=0.01)
    boxes, scores = draw_dense(batch)
    answer = ask(config, boxes, scores)
    for index in range(batch):
        one = slice(index, index + 1)
        (candidates,), (best,), (labels,) = select_candidates(
            torch.from_numpy(boxes[one]), torch.from_numpy(scores[one]), CANDIDATES
        )
        wanted = select_detections(candidates, best, labels, config)
        count = int(answer["num_detections"][index])
        assert count == len(wanted[0]) > 0
        np.testing.assert_allclose(answer["boxes"][index, :count].astype(float), wanted[0].numpy(), rtol=1e-6)
        np.testing.assert_allclose(answer["scores"][index, :count].astype(float), wanted[1].numpy(), rtol=1e-6)
        np.testing.assert_array_equal(answer["labels"][index, :count], wanted[2].numpy())


def test_unused_places_are_zero() -> None:
    boxes, scores = draw_dense(1)
    scores[0, 3:] = 0
    answer = ask(InferenceConfig(), boxes, scores)
    count = int(answer["num_detections"][0])
    assert 0 < count <= 3 * CLASSES
    for name in ("boxes", "scores", "labels"):
        assert not answer[name][0, count:].any()


def test_a_picture_without_detections_does_not_disturb_its_neighbour() -> None:
    boxes, scores = draw_dense(2)
    alone = ask(InferenceConfig(), boxes[1:], scores[1:])
    scores[0] = 0
    both = ask(InferenceConfig(), boxes, scores)
    assert both["num_detections"].tolist()[0] == 0
    np.testing.assert_array_equal(both["boxes"][1], alone["boxes"][0])
    np.testing.assert_array_equal(both["labels"][1], alone["labels"][0])


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    boxes = np.tile(np.array([0, 0, 10, 10], dtype=np.float32), (1, POINTS, 1))
    scores = np.zeros((1, POINTS, CLASSES), dtype=np.float32)
    scores[0, 0, 1], scores[0, 1, 1], scores[0, 2, 4] = 0.9, 0.8, 0.7
    answer = ask(InferenceConfig(), boxes, scores)
    assert int(answer["num_detections"][0]) == 2
    assert answer["labels"][0, :2].tolist() == [1, 4]


def test_boxes_of_neighbouring_classes_at_the_edges_do_not_meet() -> None:
    boxes = np.tile(np.array([0, 0, SIZE, SIZE], dtype=np.float32), (1, POINTS, 1))
    scores = np.zeros((1, POINTS, CLASSES), dtype=np.float32)
    scores[0, 0] = np.linspace(0.9, 0.4, CLASSES)
    answer = ask(InferenceConfig(iou_threshold=0.01), boxes, scores)
    assert int(answer["num_detections"][0]) == CLASSES
    assert answer["labels"][0, :CLASSES].tolist() == list(range(CLASSES))
