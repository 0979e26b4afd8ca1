import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.continual.stage import CPU, SIZE, TAXONOMY, Pictures, find_gradients, make_config, make_model
from training.config import Config, Task
from training.data.batches import Batch, BoxTargets
from training.data.placement import Placement, Span, letterboxed
from training.data.transforms import Target
from training.detection.mask_boxes import MaskBoxes
from training.detection.schemes import build_scheme
from training.hooks.context import StageContext
from training.hooks.hook import Step
from training.options.stage import StageConfig

LEFT, RIGHT = (4, 8, 28, 40), (32, 24, 60, 56)


def make_mask(*rectangles: tuple[int, tuple[int, int, int, int]]) -> Target:
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for label, (left, top, right, bottom) in rectangles:
        mask[top:bottom, left:right] = label
    return mask


def make_context(head: str, *masks: Target, weight: float = 1.0) -> StageContext:
    config = make_config(head=head)
    stage = StageConfig(task=Task.SEGMENTATION, epochs=2, mask_boxes=weight)
    model = make_model(config)
    model.begin_stage(still_norms=("backbone", "neck", "stem"))
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return StageContext(
        config=config,
        stage=stage,
        model=model,
        before={},
        anchors={},
        learned=(),
        datasets={Task.SEGMENTATION: Pictures([(image, mask) for mask in masks], config)},
        device=CPU,
        taxonomy=TAXONOMY,
    )


def make_step(context: StageContext, *placements: Placement | None) -> Step:
    count = len(placements)
    images = torch.from_numpy(np.stack([context.datasets[Task.SEGMENTATION].load(row)[0] for row in range(count)]))
    batch = Batch(images, torch.zeros(count, 4, 4, dtype=torch.long), torch.arange(count), placements)
    features = context.model.extract(images)
    return Step(batch, features, context.model.head.answer(features, Task.SEGMENTATION), 0.5)


def lying(*, mirrored: bool = False) -> Placement:
    return letterboxed((SIZE, SIZE), SIZE, mirrored=mirrored)


def expect(config: Config, logits: Tensor, *boxes: tuple[int, int, int, int]) -> dict[str, Tensor]:
    """Detection's loss if there were class 1 alone."""
    scheme = build_scheme(config)
    hidden = scheme.hide(logits, torch.tensor([True, False]))
    targets = [BoxTargets(torch.tensor(boxes).float().reshape(-1, 4), torch.ones(len(boxes), dtype=torch.long))]
    return scheme.loss(hidden, targets * len(logits), input_size=SIZE, epoch=1, epochs=2)


@pytest.mark.parametrize("head", ["unified", "branches"])
def test_the_loss_is_that_of_detection_on_the_boxes_of_the_mask(head: str) -> None:
    context = make_context(head, make_mask((1, LEFT), (2, RIGHT)), weight=0.5)
    step = make_step(context, lying())
    parts = MaskBoxes(context).losses(step)
    logits = context.model.head.answer(step.features, Task.DETECTION)
    expected = expect(context.config, logits, LEFT)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {f"mask_boxes/{name}": 0.5 * value.item() for name, value in expected.items()}
    )


def test_boxes_lie_where_the_picture_lies() -> None:
    context = make_context("branches", make_mask((1, LEFT)))
    step = make_step(context, lying(mirrored=True))
    parts = MaskBoxes(context).losses(step)
    left, top, right, bottom = LEFT
    logits = context.model.head.answer(step.features, Task.DETECTION)
    expected = expect(context.config, logits, (SIZE - right, top, SIZE - left, bottom))
    assert parts["mask_boxes/box"].item() == pytest.approx(expected["box"].item())


def test_a_picture_that_is_mixed_of_several_is_left_out() -> None:
    context = make_context("branches", make_mask((2, RIGHT)), make_mask((1, LEFT)))
    hook = MaskBoxes(context)
    step = make_step(context, None, lying())
    parts = hook.losses(step)
    logits = context.model.head.answer(step.features, Task.DETECTION)[1:]
    assert parts["mask_boxes/score"].item() == pytest.approx(expect(context.config, logits, LEFT)["score"].item())
    assert hook.losses(make_step(context, None)) == {}


@pytest.mark.parametrize("head", ["unified", "branches"])
def test_classes_that_no_mask_shows_are_not_scored(head: str) -> None:
    context = make_context(head, make_mask((1, LEFT)))
    step = make_step(context, lying())
    loss = torch.stack(list(MaskBoxes(context).losses(step).values())).sum()
    gradients = find_gradients(loss, context.model)
    rows = gradients["head.predict.bias" if head == "unified" else "head.detection.scores.bias"]
    silent, scored = (5, 4) if head == "unified" else (0, 1)  # a softmax over one class learns nothing; its object does
    assert rows[silent] == 0
    assert rows[scored] != 0
    assert any(name.startswith("backbone") for name in gradients)


def test_a_mask_without_objects_teaches_that_there_are_none() -> None:
    context = make_context("branches", make_mask())
    parts = MaskBoxes(context).losses(make_step(context, lying()))
    assert parts["mask_boxes/box"] == 0
    assert parts["mask_boxes/score"] > 0


def test_detection_learns_where_masks_have_boxes() -> None:
    stage = StageConfig(task=Task.SEGMENTATION, epochs=1, mask_boxes=0.5)
    assert stage.lr_factor("detection") == 1
    assert StageConfig(task=Task.SEGMENTATION, epochs=1).lr_factor("detection") == 0


@pytest.mark.parametrize("task", [Task.DETECTION, Task.CLASSIFICATION])
def test_other_tasks_have_no_masks(task: Task) -> None:
    with pytest.raises(ValueError, match="mask_boxes is for segmentation"):
        StageConfig(task=task, epochs=1, mask_boxes=1.0)


def test_what_is_left_of_an_object_at_the_edge_is_no_background() -> None:
    context = make_context("branches", make_mask((1, LEFT)))
    edge = Placement(Span(SIZE, SIZE, -24, SIZE), Span(SIZE, SIZE, 0, SIZE))  # 4 of 24 px are seen
    step = make_step(context, edge)
    parts = MaskBoxes(context).losses(step)
    logits = context.model.head.answer(step.features, Task.DETECTION)
    left, top, right, bottom = LEFT
    rest = torch.tensor([[left, top, right, bottom]]).float() - torch.tensor([24, 0, 24, 0])
    target = BoxTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    target = target._replace(ignored=rest.clamp(min=0), ignored_labels=torch.tensor([1]))
    scheme = build_scheme(context.config)
    hidden = scheme.hide(logits, torch.tensor([True, False]))
    expected = scheme.loss(hidden, [target], input_size=SIZE, epoch=1, epochs=2)
    assert parts["mask_boxes/score"].item() == pytest.approx(expected["score"].item())
    assert parts["mask_boxes/score"].item() < expect(context.config, logits)["score"].item()
