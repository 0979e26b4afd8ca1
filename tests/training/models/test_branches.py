from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.fakes import make_images, make_model
from tests.training.there import there
from training.config import ModelConfig, Task
from training.models.branches import (
    Branches,
    ClassificationBranch,
    DetectionBranch,
    LrasppBranch,
    SegmentationBranch,
    prior_bias,
)
from training.models.multitask import MultiTaskModel
from training.models.pyramid import Features, Pyramid

BACKBONE_CHANNELS = (3, 4, 6, 8)
NUM_CLASSES = {Task.SEGMENTATION: 4, Task.DETECTION: 3, Task.CLASSIFICATION: 2}
POINTS = 8 * 8 + 4 * 4 + 2 * 2


def make_config(**changes: Any) -> ModelConfig:  # noqa: ANN401 - fields of ModelConfig
    shape = {"backbone_weights": "random", "neck": "fpn", "neck_channels": 5, "head": "branches"}
    return ModelConfig(**shape | changes)


def make_features(*, seed: int = 0) -> Features:
    """Noise of two pictures of 64 px a side."""
    generator = torch.manual_seed(seed)
    pyramid = Pyramid(
        *(
            torch.randn(2, count, 64 // stride, 64 // stride, generator=generator)
            for count, stride in zip(BACKBONE_CHANNELS, (4, 8, 16, 32), strict=True)
        )
    )
    return Features(pyramid, tuple(torch.randn(2, 5, side, side, generator=generator) for side in (8, 4, 2)))


def moved_by(branch: nn.Module, **changed: Tensor) -> bool:
    """Whether a branch says something else when features of the backbone's pyramid change."""
    before = make_features()
    after = before._replace(pyramid=before.pyramid._replace(**changed))
    return not torch.equal(branch.eval()(before), branch(after))


def branches_of(model: MultiTaskModel) -> Branches:
    assert isinstance(model.head, Branches)
    return model.head


@pytest.mark.parametrize(("skip", "side"), [("s8", 8), ("s4", 16)])
def test_the_mask_is_drawn_at_the_stride_of_the_skip_and_reads_no_finer_features(skip: str, side: int) -> None:
    torch.manual_seed(0)
    branch = SegmentationBranch(make_config(segmentation_skip=skip), 3, 8, 4)
    assert branch(make_features()).shape == (2, 4, side, side)
    assert moved_by(branch, s4=make_features(seed=1).pyramid.s4) is (skip == "s4")
    assert moved_by(branch, s32=make_features(seed=1).pyramid.s32)


def test_lraspp_draws_at_stride_8_from_the_backbone_alone() -> None:
    torch.manual_seed(0)
    branch, features = LrasppBranch(4, 8, 4).eval(), make_features()
    assert branch(features).shape == (2, 4, 8, 8)
    assert torch.equal(branch(features), branch(features._replace(levels=())))
    changed = make_features(seed=1).pyramid
    assert [moved_by(branch, **{name: getattr(changed, name)}) for name in Pyramid._fields] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("reg_max", [0, 7])
@pytest.mark.parametrize("depth", [1, 3])
def test_detection_says_box_values_and_class_logits_for_every_point(reg_max: int, depth: int) -> None:
    branch = DetectionBranch(make_config(reg_max=reg_max, detection_depth=depth), 3, 6)
    assert branch(make_features()).shape == (2, POINTS, 4 * (reg_max + 1) + 6)


def test_detection_points_come_level_by_level_and_row_by_row() -> None:
    torch.manual_seed(0)
    branch, features = DetectionBranch(make_config(kernel_size=3), 3, 6).eval(), make_features()
    middle = features.levels[1].clone()
    middle[:, :, 3, 0] += 1  # the last row of the level at stride 16, whose points begin after the 64 of stride 8
    changed = features._replace(levels=(features.levels[0], middle, features.levels[2]))
    moved = (branch(changed) != branch(features)).any(dim=(0, 2)).nonzero().flatten()
    # Two 3x3 convolutions reach two cells: columns 0 to 2 of the rows 1 to 3.
    assert moved.tolist() == [64 + 4 * row + column for row in (1, 2, 3) for column in (0, 1, 2)]


def test_the_scale_of_a_level_moves_its_boxes_and_no_scores() -> None:
    branch, features = DetectionBranch(make_config(), 3, 6).eval(), make_features()
    before = branch(features)
    with torch.no_grad():
        branch.scales[1] = 3
    after = branch(features)
    torch.testing.assert_close(after[:, 64:80, :4], 3 * before[:, 64:80, :4])
    assert torch.equal(after[..., 4:], before[..., 4:])
    assert torch.equal(after[:, :64], before[:, :64])
    assert torch.equal(after[:, 80:], before[:, 80:])


@pytest.mark.parametrize("prior", [0.01, 0.1])
def test_before_anything_is_learned_every_class_scores_its_prior(prior: float) -> None:
    torch.manual_seed(0)
    branch = DetectionBranch(make_config(score_prior=prior), 3, 80)
    scores = branch(make_features())[..., 4:].sigmoid()
    assert scores.mean().item() == pytest.approx(prior, rel=0.05)
    assert ((scores > prior / 2) & (scores < 2 * prior)).all()


def test_classification_is_a_linear_map_of_the_mean_of_the_coarsest_features() -> None:
    branch, features = ClassificationBranch(make_config(), 8, 2, None).eval(), make_features()
    by_hand = features.pyramid.s32.mean(dim=(2, 3)) @ branch.predict.weight.T + branch.predict.bias
    torch.testing.assert_close(branch(features), by_hand)


def test_a_tail_reads_stride_16_in_place_of_stride_32() -> None:
    torch.manual_seed(0)
    tail = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1))
    branch = ClassificationBranch(make_config(), 8, 2, tail)
    assert branch(make_features()).shape == (2, 2)
    assert moved_by(branch, s16=make_features(seed=1).pyramid.s16)
    assert not moved_by(branch, s32=make_features(seed=1).pyramid.s32)


def test_a_tail_starts_as_the_backbone_ends_and_goes_its_own_way() -> None:
    model = make_model(make_config(classification="tail"))
    tail = there(branches_of(model).classification).tail
    assert tail is not None
    images = make_images(2)
    model.eval()
    pyramid = model.extract(images).pyramid
    assert torch.equal(tail(pyramid.s16), pyramid.s32)
    shared = {value.data_ptr() for value in model.backbone.state_dict().values()}
    assert not shared & {value.data_ptr() for value in tail.state_dict().values()}
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter.mul_(2)
    assert torch.equal(model.extract(images).pyramid.s32, pyramid.s32)


@pytest.mark.parametrize("changes", [{}, {"segmentation": "lraspp"}, {"routing": "static"}, {"routing": "dynamic"}])
@pytest.mark.parametrize("task", list(Task))
def test_asked_for_one_task_the_branches_say_what_they_say_among_all(changes: dict[str, str], task: Task) -> None:
    torch.manual_seed(0)
    head = Branches(make_config(**changes), BACKBONE_CHANNELS, NUM_CLASSES, tail=None).eval()
    logits, alone = head(make_features()), head.answer(make_features(), task)
    assert torch.equal(alone, getattr(logits, task.value))
    assert (
        alone.shape
        == {
            Task.SEGMENTATION: (2, 4, 8, 8),
            Task.DETECTION: (2, POINTS, 4 + 3),
            Task.CLASSIFICATION: (2, 2),
        }[task]
    )


@pytest.mark.parametrize("task", [Task.SEGMENTATION, Task.DETECTION])
def test_a_gate_routes_the_levels_of_its_own_task_alone(task: Task) -> None:
    torch.manual_seed(0)
    head = Branches(make_config(routing="static"), BACKBONE_CHANNELS, NUM_CLASSES, tail=None).eval()
    before = head(make_features())
    with torch.no_grad():
        for parameter in head.gates[str(task)].parameters():
            parameter.add_(torch.linspace(-1, 1, len(parameter)))
    after = head(make_features())
    assert [other for other in Task if not torch.equal(getattr(after, other), getattr(before, other))] == [task]


@pytest.mark.parametrize("routing", ["none", "dynamic"])
def test_what_learns_for_a_task_alone_is_its_branch_and_its_gate(routing: str) -> None:
    head = Branches(make_config(routing=routing), BACKBONE_CHANNELS, NUM_CLASSES, tail=None)
    parts = [{id(parameter) for parameter in head.part(task).parameters()} for task in Task]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(list(head.parameters()))


@pytest.mark.parametrize("prior", [0.01, 0.5, 0.9])
def test_the_sigmoid_of_the_bias_is_the_prior(prior: float) -> None:
    assert torch.tensor(prior_bias(prior)).sigmoid().item() == pytest.approx(prior)
