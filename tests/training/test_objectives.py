import math

import pytest
import torch
import torch.nn.functional as F

from tests.training.fakes import make_batch, make_branches_config, make_config, make_model, random_logits
from training.config import Config, Task
from training.data.taxonomy import VOID
from training.objectives import balance_classes, classification_loss, make_objective, segmentation_loss

UNIFIED, BRANCHES = make_config(), make_branches_config()


@pytest.mark.parametrize(
    ("config", "detection"),
    [(UNIFIED, {"confidence", "box", "class"}), (BRANCHES, {"score", "box"})],
    ids=["unified", "branches"],
)
@pytest.mark.parametrize("task", list(Task))
def test_each_task_learns_from_its_own_logits_alone(task: Task, config: Config, detection: set[str]) -> None:
    model, batch = make_model(config.model).eval(), make_batch(task)
    logits = model(batch.images)
    parts = make_objective(config, task, epochs=1)(getattr(logits, task.value), batch, 0)
    names = {
        Task.SEGMENTATION: {"segmentation"},
        Task.DETECTION: detection,
        Task.CLASSIFICATION: {"classification"},
    }
    assert parts.keys() == names[task]
    total = torch.stack(list(parts.values())).sum()
    each = [getattr(logits, other) for other in Task]
    gradients = torch.autograd.grad(total, each, allow_unused=True, materialize_grads=True)
    assert [other for other, gradient in zip(Task, gradients, strict=True) if gradient.any()] == [task]


def test_the_detection_loss_is_told_the_epoch_of_its_stage() -> None:
    model, batch = make_model().eval(), make_batch(Task.DETECTION)
    objective = make_objective(make_config(), Task.DETECTION, epochs=20)
    logits = model(batch.images).detection
    bce, still_bce, focal = (objective(logits, batch, epoch)["confidence"].item() for epoch in (0, 9, 10))
    assert bce == still_bce > focal


@pytest.mark.parametrize("config", [UNIFIED, BRANCHES], ids=["unified", "branches"])
def test_the_size_of_the_batch_decides_the_grid_not_that_of_the_run(config: Config) -> None:
    model, batch = make_model(config.model).eval(), make_batch(Task.DETECTION)
    large = batch._replace(images=torch.zeros(2, 96, 96, 3, dtype=torch.uint8))
    parts = make_objective(config, Task.DETECTION, epochs=1)(model(large.images).detection, large, 0)
    assert all(torch.isfinite(part) for part in parts.values())


def test_segmentation_is_the_mean_over_the_labelled_cells_of_the_batch() -> None:
    logits = random_logits(2, 3, 2, 2)
    masks = torch.tensor([[[0, VOID], [VOID, VOID]], [[1, 2], [VOID, 0]]])
    log_probs = logits.log_softmax(dim=1)
    by_hand = -(log_probs[0, 0, 0, 0] + log_probs[1, 1, 0, 0] + log_probs[1, 2, 0, 1] + log_probs[1, 0, 1, 1]) / 4
    assert segmentation_loss(logits, masks)["segmentation"].item() == pytest.approx(by_hand.item())


def test_weighted_segmentation_is_the_weighted_mean_of_torch() -> None:
    logits, weights = random_logits(2, 3, 4, 4), torch.tensor([0.5, 1.0, 4.0])
    masks = torch.randint(0, 3, (2, 4, 4), generator=torch.manual_seed(1))
    masks[0, 0] = VOID
    expected = F.cross_entropy(logits, masks, weight=weights, ignore_index=VOID)
    assert segmentation_loss(logits, masks, weights)["segmentation"].item() == pytest.approx(expected.item())


def test_balanced_weights_are_by_hand_and_have_a_mean_of_1_over_the_pixels() -> None:
    pixels = torch.tensor([16, 4, 4])
    by_hand = torch.tensor([0.5, 1.0, 1.0]) * 24 / (0.5 * 16 + 4 + 4)
    torch.testing.assert_close(balance_classes(pixels, 0.5), by_hand)
    assert (balance_classes(pixels, 0.7) * pixels).sum().item() == pytest.approx(24)
    assert balance_classes(pixels, 0.0).tolist() == [1, 1, 1]


def test_a_class_that_never_occurs_gets_the_largest_weight_and_breaks_nothing() -> None:
    weights = balance_classes(torch.tensor([10, 10, 0]), 0.5)
    assert torch.isfinite(weights).all()
    assert weights[2] == weights.max()


def test_what_the_network_says_under_void_changes_nothing() -> None:
    logits, masks = random_logits(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.long)
    masks[0, 1:3, 1:3] = VOID
    changed = logits.clone()
    changed[..., 1:3, 1:3] += 100 * random_logits(3, 2, 2)
    assert torch.equal(
        segmentation_loss(changed, masks)["segmentation"], segmentation_loss(logits, masks)["segmentation"]
    )


def test_a_batch_of_nothing_but_void_has_loss_0_and_gradient_0() -> None:
    logits = random_logits(2, 3, 2, 2).requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 8, 8), VOID))["segmentation"]
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_segmentation_logits_are_spread_over_the_mask_without_aligned_corners() -> None:
    # Two cells 0 and 1 become four with their centres at -1/4, 1/4, 3/4, 5/4 of a cell; beyond the edge it is flat.
    logits = torch.stack([torch.zeros(1, 2, 2), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])], dim=1)
    spread = torch.tensor([0.0, 0.25, 0.75, 1.0])
    by_hand = torch.log(1 + spread.exp()) - spread  # -log softmax of the second class
    found = segmentation_loss(logits, torch.ones(1, 4, 4, dtype=torch.long))["segmentation"]
    assert found.item() == pytest.approx(by_hand.mean().item())


def test_classification_is_the_mean_of_minus_log_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = classification_loss(logits, torch.tensor([1, 0]))["classification"]
    assert loss.item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)


def test_losses_of_half_precision_logits_are_computed_in_full() -> None:
    half = random_logits(2, 5 + 3, 2, 2).bfloat16()
    masks = torch.zeros(2, 4, 4, dtype=torch.long)
    parts = [
        *segmentation_loss(half, masks).values(),
        *classification_loss(half.flatten(1), torch.tensor([0, 1])).values(),
    ]
    assert {part.dtype for part in parts} == {torch.float32}
    assert parts[-1].item() == pytest.approx(F.cross_entropy(half.flatten(1).float(), torch.tensor([0, 1])).item())
