import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from tests.training.fakes import make_batch, make_config, make_images, make_model
from training.config import StageConfig, Task
from training.continual.ewc import ewc_penalty, make_anchor
from training.data.loaders import Batch, BatchTargets
from training.engine import Protection, TrainingDivergedError, build_optimizer, build_scheduler, train_one_epoch
from training.models.heads import TaskLogits
from training.models.multitask import MultiTaskModel
from training.stages import make_loss

CPU = torch.device("cpu")
STAGE = StageConfig(task=Task.SEGMENTATION, epochs=1, learning_rate=1e-2, weight_decay=0.5)


def groups_by_name(model: MultiTaskModel, optimizer: AdamW) -> dict[str, dict[str, float]]:
    found = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in found}


def train(
    model: MultiTaskModel,
    batches: list[Batch],
    *,
    stage: StageConfig = STAGE,
    optimizer: AdamW | None = None,
    protections: tuple[Protection, ...] = (),
    clip_norm: float = 10.0,
) -> dict[str, float]:
    optimizer = optimizer or build_optimizer(model, stage)
    scheduler = build_scheduler(optimizer, steps=len(batches), warmup_fraction=0)
    loss = make_loss(make_config(), stage.task, epoch=0)
    return train_one_epoch(
        model, batches, loss, optimizer, scheduler, device=CPU, clip_norm=clip_norm, protections=protections
    )


def constant_loss(logits: TaskLogits, targets: BatchTargets) -> dict[str, Tensor]:
    """The mean label as "label", and 2 as "other"; it teaches nothing."""
    assert isinstance(targets, Tensor)
    nothing = 0 * logits.classification.sum()
    return {"label": targets.float().mean() + nothing, "other": 2 + nothing}


def labelled(count: int, label: int) -> Batch:
    return Batch(make_images(count), torch.full((count,), label))


def train_with(
    model: MultiTaskModel, batches: list[Batch], protections: tuple[Protection, ...] = ()
) -> dict[str, float]:
    optimizer = build_optimizer(model, STAGE)
    scheduler = build_scheduler(optimizer, steps=len(batches), warmup_fraction=0)
    return train_one_epoch(
        model, batches, constant_loss, optimizer, scheduler, device=CPU, clip_norm=1.0, protections=protections
    )


def test_batch_norm_biases_and_prediction_rows_never_decay_and_the_rest_does() -> None:
    model = make_model()
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, group in groups_by_name(model, build_optimizer(model, STAGE)).items():
        spared = name.rsplit(".", 1)[0] in norms or name.endswith("bias") or name.startswith("head.predict.")
        assert group["weight_decay"] == (0 if spared else 0.5), name


def test_the_backbone_alone_learns_at_a_fraction_of_the_rate() -> None:
    model = make_model()
    stage = STAGE.model_copy(update={"backbone_lr_factor": 0.25})
    for name, group in groups_by_name(model, build_optimizer(model, stage)).items():
        assert group["lr"] == pytest.approx(0.25e-2 if name.startswith("backbone.") else 1e-2), name


@pytest.mark.parametrize("batch_norm", ["live", "frozen"])
def test_the_optimizer_has_all_that_learns_once_and_no_memory(batch_norm: str) -> None:
    model = make_model(make_config().model.model_copy(update={"batch_norm": batch_norm}))
    optimizer = build_optimizer(model, STAGE)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert not optimizer.state


def test_the_rate_warms_up_then_falls_along_a_cosine_to_zero() -> None:
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = build_scheduler(optimizer, steps=105, warmup_fraction=5 / 105)
    rates = []
    for _ in range(106):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:6] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
    assert rates[30] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[55] == pytest.approx(1.0)
    assert rates[105] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in pairwise(rates[5:]))


@pytest.mark.parametrize(("steps", "warmup_fraction"), [(10, 0.0), (1, 0.05), (3, 1.0)])
def test_the_rate_is_never_zero_while_there_are_steps(steps: int, warmup_fraction: float) -> None:
    optimizer = AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(optimizer, steps=steps, warmup_fraction=warmup_fraction)
    for _ in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= 1
        optimizer.step()
        scheduler.step()


def test_losses_are_means_over_pictures_not_over_batches() -> None:
    losses = train_with(make_model(), [labelled(4, 1), labelled(2, 4)])
    assert losses == pytest.approx({"label": 2.0, "other": 2.0, "loss": 4.0})  # (4 * 1 + 2 * 4) / 6


def test_each_batch_tells_its_number_of_pictures() -> None:
    model, told = make_model(), list[int]()
    optimizer = build_optimizer(model, STAGE)
    scheduler = build_scheduler(optimizer, steps=2, warmup_fraction=0)
    train_one_epoch(
        model,
        [labelled(3, 0), labelled(2, 0)],
        constant_loss,
        optimizer,
        scheduler,
        device=CPU,
        clip_norm=1.0,
        on_batch=told.append,
    )
    assert told == [3, 2]
    assert scheduler.last_epoch == 2


def test_penalties_are_reported_times_their_strength_and_added_to_the_loss() -> None:
    protections = (
        Protection("segmentation", 0.5, lambda: torch.tensor(6.0)),
        Protection("detection", 10.0, lambda: torch.tensor(0.2)),
    )
    losses = train_with(make_model(), [labelled(2, 1)], protections)
    assert losses == pytest.approx(
        {"label": 1.0, "other": 2.0, "ewc/segmentation": 3.0, "ewc/detection": 2.0, "loss": 8.0}
    )


def test_a_penalty_pulls_a_weight_back_to_its_anchor() -> None:
    model = make_model()
    shared = {"neck.0.weight": model.shared_parameters()["neck.0.weight"]}
    anchor = make_anchor(shared, {"neck.0.weight": torch.ones_like(shared["neck.0.weight"])})
    with torch.no_grad():
        shared["neck.0.weight"].add_(1)
    before = ewc_penalty(shared, anchor).item()
    stage = STAGE.model_copy(update={"weight_decay": 0.0})
    optimizer = build_optimizer(model, stage)
    scheduler = build_scheduler(optimizer, steps=4, warmup_fraction=0)
    protection = Protection("segmentation", 1.0, partial(ewc_penalty, shared, anchor))
    train_one_epoch(
        model,
        [labelled(2, 0)] * 4,
        constant_loss,
        optimizer,
        scheduler,
        device=CPU,
        clip_norm=1.0,
        protections=[protection],
    )
    assert ewc_penalty(shared, anchor).item() < before


def test_the_whole_gradient_is_clipped() -> None:
    model = make_model()
    train(model, [make_batch(Task.SEGMENTATION)], clip_norm=1e-3)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.cat([gradient.ravel() for gradient in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(value: float) -> None:
    model = make_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    protection = Protection("segmentation", 1.0, lambda: torch.tensor(value))
    with pytest.raises(TrainingDivergedError, match=r"the loss became .*ewc/segmentation.*lower learning_rate"):
        train_with(model, [labelled(2, 1)], (protection,))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("task", list(Task))
def test_training_a_task_leaves_the_prediction_rows_of_the_others_as_they_are_to_the_bit(task: Task) -> None:
    model = make_model()
    shared = model.shared_parameters()
    anchor = make_anchor(shared, {name: torch.ones_like(value) for name, value in shared.items()})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = STAGE.model_copy(update={"task": task})
    protections = (Protection("another", 1.0, partial(ewc_penalty, shared, anchor)),)
    train(model, [make_batch(task, seed=seed) for seed in range(3)], stage=stage, protections=protections)
    for part in ("weight", "bias"):
        name = f"head.predict.{part}"
        for other, rows in model.head.rows.items():
            same = torch.equal(model.state_dict()[name][rows], before[name][rows])
            assert same is (other is not task), (part, other)
    assert not torch.equal(model.state_dict()["head.stem.0.weight"], before["head.stem.0.weight"])


def test_an_optimizer_that_is_carried_on_would_move_them() -> None:
    """The reason for a fresh optimizer a stage: its moments go on moving rows whose gradient is zero."""
    model = make_model()
    rows = model.head.rows[Task.SEGMENTATION]
    optimizer = build_optimizer(model, STAGE)
    train(model, [make_batch(Task.SEGMENTATION)], optimizer=optimizer)
    learned = model.head.predict.weight[rows].detach().clone()
    stage = STAGE.model_copy(update={"task": Task.CLASSIFICATION})
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    train(model, [make_batch(Task.CLASSIFICATION)], stage=stage, optimizer=optimizer)
    assert not torch.equal(model.head.predict.weight[rows], learned)


def test_an_epoch_leaves_the_network_training_and_its_loss_lower() -> None:
    model = make_model().eval()
    batches = [make_batch(Task.SEGMENTATION)] * 6
    stage = STAGE.model_copy(update={"weight_decay": 0.0})
    first = train(model, batches, stage=stage)["loss"]
    assert model.training
    assert train(model, batches, stage=stage)["loss"] < first
