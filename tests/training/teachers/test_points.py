from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou

from tests.training.continual.stage import SIZE, TAXONOMY, make_config, make_context, make_step
from tests.training.data.labelling.make_teachers import DETECTOR, write_boxes, write_grid, write_grids, write_toml
from training.config import Task
from training.continual.build import build_hooks
from training.detection.points import make_points
from training.detection.schemes import PointScheme, build_scheme
from training.hooks.context import StageContext
from training.hooks.hook import Step
from training.teachers.points import (
    PointAnswer,
    PointLesson,
    PointLoss,
    PointTeacher,
    build_point_loss,
    open_point_teacher,
)
from training.teachers.teacher import TeacherError

STRIDES = (8, 16, 32)
GIVEN = 'size = 64\nfit = "stretch"\nscale = 1'
GRIDS = f'kind = "yolox"\nstrides = {list(STRIDES)}'
NAMES = ("Cat", "wolf", "cat")


def describe(path: Path, *, names: tuple[str, ...] = NAMES, output: str = GRIDS, more: str = "") -> Path:
    return write_toml(path, given=GIVEN, output=output, names=names, more=more)


def open_it(tmp_path: Path, names: tuple[str, ...] = NAMES, more: str = "") -> PointTeacher:
    path = write_grids(tmp_path / "t.onnx")
    return PointTeacher(describe(path, names=names, more=more), TAXONOMY, STRIDES)


def test_every_point_of_squares_of_any_size_has_a_box_and_its_scores(tmp_path: Path) -> None:
    teacher = open_it(tmp_path, names=("dog", "wolf", "cat"))
    images = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
    images[1, :8, 8:16, :2] = torch.tensor([204, 102], dtype=torch.uint8)  # the second cell of stride 8
    answer = teacher.answer(images)
    points, strides = make_points(96, STRIDES, torch.device("cpu"))
    assert teacher.columns.tolist() == [0, 1]
    torch.testing.assert_close(
        answer.boxes[0], torch.cat([points - strides[:, None], points + strides[:, None]], dim=1), rtol=0, atol=1e-4
    )
    # Objectness 0.8, class scores 0.4, 0.4 / 2 and 0.4 / 3.
    torch.testing.assert_close(answer.scores[1, 1], torch.tensor([0.32, 0.32 / 3]))
    assert answer.scores[0].max() == 0
    # Stride 16 sees a quarter of it in its first cell, stride 32 a sixteenth.
    torch.testing.assert_close(answer.scores[1, 144, 0], torch.tensor(0.32 / 16))
    assert answer.scores[1].count_nonzero(dim=0).tolist() == [3, 3]


def test_names_are_found_whatever_their_case_and_positions_of_one_name_are_one_class(tmp_path: Path) -> None:
    teacher = open_it(tmp_path, names=("wolf", "CAT", "lynx"), more='aliases = { lynx = "CAT" }')
    assert [TAXONOMY.detection[column] for column in teacher.columns] == ["cat"]
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(teacher.answer(white).scores, torch.full((1, 21, 1), 0.5))


@pytest.mark.parametrize(
    ("strides", "names", "sentence"),
    [
        ((8, 16), NAMES, r"gives strides \[8, 16, 32\]; detection is taught by yolox at strides \[8, 16\]"),
        (STRIDES, ("car", "bus", "van"), "knows none of the data's 2 classes by name"),
    ],
)
def test_what_cannot_teach_is_refused(
    tmp_path: Path, strides: tuple[int, ...], names: tuple[str, ...], sentence: str
) -> None:
    path = describe(write_grids(tmp_path / "t.onnx"), names=names)
    with pytest.raises(TeacherError, match=sentence):
        PointTeacher(path, TAXONOMY, strides)


def test_lists_of_boxes_teach_by_labels_alone(tmp_path: Path) -> None:
    path = write_toml(write_boxes(tmp_path / "t.onnx", [(0, 0, 1, 1)]), output=DETECTOR, names=NAMES)
    with pytest.raises(TeacherError, match=r"gives boxes; .*`unihead-data label` makes labels"):
        PointTeacher(path, TAXONOMY, STRIDES)


def test_a_file_whose_size_is_written_elsewhere_too_is_refused_before_the_first_step(tmp_path: Path) -> None:
    path = write_toml(write_grid(tmp_path / "t.onnx", {0: [0.5] * 8}), output=GRIDS, names=NAMES)
    with pytest.raises(TeacherError, match=r"export it with a free batch, height and width"):
        open_point_teacher(str(path), make_config(head="branches"), TAXONOMY)


@pytest.mark.parametrize("source", ["run.pt", "file.onnx", "efficientnet_lite0"])
def test_only_a_described_detector_teaches_detection(source: str) -> None:
    with pytest.raises(TeacherError, match=f"{source}' cannot teach detection; wanted FILE.toml"):
        open_point_teacher(source, make_config(head="branches"), TAXONOMY)


def test_a_head_of_cells_is_not_taught(tmp_path: Path) -> None:
    path = describe(write_grids(tmp_path / "t.onnx"))
    with pytest.raises(TeacherError, match="head is unified"):
        open_point_teacher(str(path), make_config(), TAXONOMY)


class Told(PointTeacher):
    """Says what it is told to, about the second class."""

    def __init__(self, answer: PointAnswer) -> None:
        self.columns, self._answer = torch.tensor([1]), answer

    def answer(self, images: Tensor) -> PointAnswer:
        del images
        return self._answer


def build(tmp_path: Path) -> StageContext:
    """A stage of classification, beside which detection is taught; with half of the weight."""
    teacher = {"source": str(describe(write_grids(tmp_path / "t.onnx"))), "task": "detection", "weight": 0.5}
    return make_context(make_config({"teachers": [teacher]}, head="branches"))


def tell(context: StageContext, answer: PointAnswer, weight: float = 1.0) -> PointLoss:
    scheme = build_scheme(context.config)
    assert isinstance(scheme, PointScheme)
    lessons = [PointLesson(Told(answer), weight)]
    return PointLoss(context.model, context.stage.task, scheme, context.config.point_loss, lessons)


def read(context: StageContext, step: Step) -> tuple[Tensor, Tensor]:
    """What the network says of the second class, and its boxes in pixels."""
    said = build_scheme(context.config).read(context.model.head.answer(step.features, Task.DETECTION), input_size=SIZE)
    strides = make_points(SIZE, STRIDES, torch.device("cpu")).strides
    return said.objectness.detach()[..., 1:], said.boxes.detach() * strides[:, None]


def test_a_stage_whose_teacher_is_of_detection_is_taught_by_it(tmp_path: Path) -> None:
    context = build(tmp_path)
    (hook,) = [hook for hook in build_hooks(context) if hook.name == "point_teacher"]
    parts = hook.losses(make_step(context.model))
    assert set(parts) == {"point_teacher/score", "point_teacher/box"}
    assert all(part.item() > 0 for part in parts.values())


def test_a_stage_of_detection_is_taught_by_the_logits_that_it_has(tmp_path: Path) -> None:
    context = build(tmp_path)
    step = make_step(context.model)
    elsewhere = step._replace(logits=context.model.head.answer(step.features, Task.DETECTION))
    beside, own = build_point_loss(context), build_point_loss(context)
    assert beside is not None
    assert own is not None
    object.__setattr__(own, "task", Task.DETECTION)
    assert {name: part.item() for name, part in own.losses(elsewhere).items()} == {
        name: part.item() for name, part in beside.losses(step).items()
    }


def test_the_loss_by_hand(tmp_path: Path) -> None:
    context = build(tmp_path)
    step = make_step(context.model)
    logits, boxes = read(context, step)
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.random(tuple(logits.shape), dtype=np.float32) ** 4)
    centres = torch.from_numpy(rng.uniform(16, 48, (*boxes.shape[:2], 2)).astype(np.float32))
    answer = PointAnswer(scores, torch.cat([centres - 9, centres + 7], dim=-1))
    parts = tell(context, answer, weight=0.5).losses(step)
    total = wanted_score = wanted_box = 0.0
    for score, logit, mine, other in zip(
        scores.flatten(), logits.flatten(), boxes.flatten(0, 1), answer.boxes.flatten(0, 1), strict=True
    ):
        entropy = F.binary_cross_entropy_with_logits(logit, score)
        wanted_score += float((score - logit.sigmoid()) ** 2 * entropy)
        if score > 0.1:
            total += float(score)
            wanted_box += float(score) * float(1 - generalized_box_iou(mine[None], other[None]))
    assert total > 1
    assert parts["point_teacher/score"].item() == pytest.approx(0.5 * wanted_score / total, rel=1e-4)
    assert parts["point_teacher/box"].item() == pytest.approx(0.5 * 2.0 * wanted_box / total, rel=1e-4)


def test_who_agrees_has_nothing_to_learn(tmp_path: Path) -> None:
    context = build(tmp_path)
    step = make_step(context.model)
    logits, boxes = read(context, step)
    parts = tell(context, PointAnswer(logits.sigmoid(), boxes)).losses(step)
    assert sum(part.item() for part in parts.values()) == pytest.approx(0, abs=1e-5)


def test_classes_that_the_teacher_does_not_know_are_left_alone(tmp_path: Path) -> None:
    context = build(tmp_path)
    step = make_step(context.model)
    logits, boxes = read(context, step)
    loss = tell(context, PointAnswer(torch.ones_like(logits), boxes))
    leaf = context.model.head.answer(step.features, Task.DETECTION).detach().requires_grad_()
    object.__setattr__(loss, "task", Task.DETECTION)
    (gradient,) = torch.autograd.grad(loss.losses(step._replace(logits=leaf))["point_teacher/score"], leaf)
    assert gradient[..., -1].count_nonzero() == logits.numel()
    assert gradient[..., :-1].count_nonzero() == 0


def test_no_teacher_of_detection_no_loss() -> None:
    assert build_point_loss(make_context(make_config(head="branches"))) is None


def test_answers_go_by_file_and_description(tmp_path: Path) -> None:
    first, same = open_it(tmp_path).sha256, open_it(tmp_path).sha256
    assert first == same != open_it(tmp_path, names=("dog", "wolf", "cat")).sha256
