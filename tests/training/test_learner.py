import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.training.fakes import make_batch, make_branches_config, make_config, make_images, make_model
from tests.training.watched import CPU, assert_same_tensors
from training.config import Config, StageConfig, Task
from training.continual.ewc import ewc_penalty, make_anchor
from training.data.batches import Batch
from training.hooks.hook import Hook, Step
from training.learner import Learner, StagePlan, TrainingDivergedError
from training.models.heads import UnifiedHead
from training.models.multitask import MultiTaskModel
from training.objectives import Objective, make_objective

STAGE = StageConfig(task=Task.SEGMENTATION, epochs=1, learning_rate=1e-2, weight_decay=0.5, warmup_fraction=0)


class Holding(Hook):
    """Adds the parts that it is given, and remembers that it was asked."""

    def __init__(self, **parts: float) -> None:
        self._parts = parts
        self.steps: list[Step] = []
        self.finished = 0

    def losses(self, step: Step) -> dict[str, Tensor]:
        self.steps.append(step)
        return {name: torch.tensor(value) for name, value in self._parts.items()}

    def finish(self) -> None:
        self.finished += 1


class Pulling(Hook):
    """A penalty that pulls the shared weights to where a network of the same seed has them at the start."""

    name = "pulling"

    def __init__(self, model: MultiTaskModel) -> None:
        shared = make_model().shared_parameters()
        self._model = model
        self._anchor = make_anchor(shared, {name: torch.ones_like(value) for name, value in shared.items()})

    def losses(self, step: Step) -> dict[str, Tensor]:
        del step
        return {"pulling": self.penalty()}

    def penalty(self) -> Tensor:
        return ewc_penalty(self._model.shared_parameters(), self._anchor)


def make_learner(
    model: MultiTaskModel,
    stage: StageConfig = STAGE,
    *,
    hooks: Sequence[Hook] = (),
    steps: int = 1,
    objective: Objective | None = None,
    config: Config | None = None,
) -> Learner:
    objective = objective or make_objective(config or make_config(), stage.task, epochs=stage.epochs)
    return Learner(model, StagePlan(stage, objective, steps), lambda: hooks, device=CPU)


def train(
    model: MultiTaskModel, batches: Sequence[Batch], stage: StageConfig = STAGE, *, hooks: Sequence[Hook] = ()
) -> dict[str, float]:
    return make_learner(model, stage, hooks=hooks, steps=len(batches)).train_one_epoch(batches, epoch=0)


def constant_loss(logits: Tensor, batch: Batch, epoch: int) -> dict[str, Tensor]:
    """The mean label as "label", and 2 as "other"; it teaches nothing."""
    del epoch
    assert isinstance(batch.targets, Tensor)
    nothing = 0 * logits.sum()
    return {"label": batch.targets.float().mean() + nothing, "other": 2 + nothing}


def labelled(count: int, label: int) -> Batch:
    return Batch(make_images(count), torch.full((count,), label), torch.arange(count))


def train_with(model: MultiTaskModel, batches: Sequence[Batch], *hooks: Hook) -> dict[str, float]:
    learner = make_learner(model, hooks=hooks, steps=len(batches), objective=constant_loss)
    return learner.train_one_epoch(batches, epoch=0)


def weights_of(model: MultiTaskModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def head_of(model: MultiTaskModel) -> UnifiedHead:
    assert isinstance(model.head, UnifiedHead)
    return model.head


def test_losses_are_means_over_pictures_not_over_batches() -> None:
    losses = train_with(make_model(), [labelled(4, 1), labelled(2, 4)])
    assert losses == pytest.approx({"label": 2.0, "other": 2.0, "loss": 4.0})  # (4 * 1 + 2 * 4) / 6


def test_each_batch_tells_its_number_of_pictures() -> None:
    told = list[int]()
    learner = make_learner(make_model(), steps=2, objective=constant_loss)
    learner.train_one_epoch([labelled(3, 0), labelled(2, 0)], epoch=0, on_batch=told.append)
    assert told == [3, 2]
    assert learner.state_dict()["scheduler"]["last_epoch"] == 2


def test_the_objective_is_told_the_epoch_and_hooks_the_progress_of_the_stage() -> None:
    epochs, hook = list[int](), Holding()

    def objective(logits: Tensor, batch: Batch, epoch: int) -> dict[str, Tensor]:
        epochs.append(epoch)
        return constant_loss(logits, batch, epoch)

    stage = STAGE.model_copy(update={"epochs": 4})
    learner = make_learner(make_model(), stage, hooks=[hook], steps=2, objective=objective)
    for epoch in (0, 3):
        learner.train_one_epoch([labelled(2, 0)] * 2, epoch=epoch)
    assert epochs == [0, 0, 3, 3]
    assert [step.progress for step in hook.steps] == [0, 1 / 8, 6 / 8, 7 / 8]
    assert hook.steps[0].logits.shape == (2, 21, 2, 2)


def test_the_parts_of_hooks_are_reported_and_added_to_the_loss() -> None:
    hooks = Holding(**{"ewc/segmentation": 3.0, "ewc/detection": 2.0}), Holding()
    losses = train_with(make_model(), [labelled(2, 1)], *hooks)
    assert losses == pytest.approx(
        {"label": 1.0, "other": 2.0, "ewc/segmentation": 3.0, "ewc/detection": 2.0, "loss": 8.0}
    )


def test_a_hook_has_its_last_word_when_the_stage_ends() -> None:
    hook = Holding()
    learner = make_learner(make_model(), hooks=[hook], objective=constant_loss)
    learner.train_one_epoch([labelled(2, 1)], epoch=0)
    assert hook.finished == 0
    learner.finish()
    assert hook.finished == 1


def test_a_penalty_pulls_a_weight_back_to_its_anchor() -> None:
    model = make_model()
    hook = Pulling(model)
    with torch.no_grad():
        model.shared_parameters()["neck.0.weight"].add_(1)
    before = hook.penalty().item()
    stage = STAGE.model_copy(update={"weight_decay": 0.0})
    learner = make_learner(model, stage, hooks=[hook], steps=4, objective=constant_loss)
    learner.train_one_epoch([labelled(2, 0)] * 4, epoch=0)
    assert hook.penalty().item() < before


def test_the_whole_gradient_is_clipped() -> None:
    model = make_model()
    train(model, [make_batch(Task.SEGMENTATION)], STAGE.model_copy(update={"clip_norm": 1e-3}))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.cat([gradient.ravel() for gradient in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_gradients_that_an_earlier_stage_left_behind_are_not_clipped_with_its_own() -> None:
    """Fails where a run that goes on in a new process, and so has none, would take other steps."""
    model = make_model(make_branches_config().model)
    for task in (Task.SEGMENTATION, Task.CLASSIFICATION):
        stage = STAGE.model_copy(update={"task": task, "clip_norm": 1e-3})
        make_learner(model, stage, config=make_branches_config()).train_one_epoch([make_batch(task)], epoch=0)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    assert torch.cat([gradient.ravel() for gradient in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert not any(parameter.grad is not None for parameter in model.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(value: float) -> None:
    model = make_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(TrainingDivergedError, match=r"the loss became .*ewc/segmentation.*lower learning_rate"):
        train_with(model, [labelled(2, 1)], Holding(**{"ewc/segmentation": value}))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights() -> None:
    def steep(logits: Tensor, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Finite, and vertical at 0."""
        del batch, epoch
        return {"root": (0 * logits.sum()).sqrt()}

    model = make_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(TrainingDivergedError, match=r"the gradient became nan; lower learning_rate"):
        make_learner(model, objective=steep).train_one_epoch([labelled(2, 1)], epoch=0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("task", list(Task))
def test_training_a_task_leaves_the_prediction_rows_of_the_others_as_they_are_to_the_bit(task: Task) -> None:
    model = make_model()
    before = weights_of(model)
    stage = STAGE.model_copy(update={"task": task})
    train(model, [make_batch(task, seed=seed) for seed in range(3)], stage, hooks=[Pulling(model)])
    for part in ("weight", "bias"):
        name = f"head.predict.{part}"
        for other, rows in head_of(model).rows.items():
            same = torch.equal(model.state_dict()[name][rows], before[name][rows])
            assert same is (other is not task), (part, other)
    assert not torch.equal(model.state_dict()["head.stem.0.weight"], before["head.stem.0.weight"])


def test_an_optimizer_that_is_carried_on_would_move_them() -> None:
    """The reason for a fresh optimizer a stage: its moments go on moving rows whose gradient is zero."""
    model = make_model()
    rows = head_of(model).rows[Task.SEGMENTATION]
    first = make_learner(model)
    first.train_one_epoch([make_batch(Task.SEGMENTATION)], epoch=0)
    learned = head_of(model).predict.weight[rows].detach().clone()
    second = make_learner(model, STAGE.model_copy(update={"task": Task.CLASSIFICATION}))
    second._optimizer.load_state_dict(first._optimizer.state_dict())
    for group in second._optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    second.train_one_epoch([make_batch(Task.CLASSIFICATION)], epoch=0)
    assert not torch.equal(head_of(model).predict.weight[rows], learned)


@pytest.mark.parametrize("config", [make_config(), make_branches_config()], ids=["unified", "branches"])
@pytest.mark.parametrize("task", list(Task))
def test_an_epoch_leaves_the_network_training_and_its_loss_lower(task: Task, config: Config) -> None:
    model = make_model(config.model).eval()
    stage = STAGE.model_copy(update={"weight_decay": 0.0, "task": task, "epochs": 2})
    learner = make_learner(model, stage, steps=6, config=config)
    first = learner.train_one_epoch([make_batch(task)] * 6, epoch=0)["loss"]
    assert model.training
    assert learner.train_one_epoch([make_batch(task)] * 6, epoch=1)["loss"] < first


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "gradnorm"])
def test_a_stage_that_is_resumed_ends_as_if_it_had_never_stopped(balance: str) -> None:
    """Fails where anything that moves is left out of the state: moments, rate, weights of losses, average."""
    stage = STAGE.model_copy(update={"epochs": 2, "ema": 0.9, "balance": balance, "warmup_fraction": 0.5})
    batches = [make_batch(Task.SEGMENTATION, seed=seed) for seed in range(2)]
    whole, stopped = make_model(), make_model(seed=9)
    learner = make_learner(whole, stage, hooks=[Pulling(whole)], steps=2)
    learner.train_one_epoch(batches, epoch=0)
    stopped.load_state_dict(whole.state_dict())
    state = copy.deepcopy(learner.state_dict())
    learner.train_one_epoch(batches, epoch=1)
    learner.finish()

    again = make_learner(stopped, stage, hooks=[Pulling(stopped)], steps=2)
    again.load_state_dict(state)
    again.train_one_epoch(batches, epoch=1)
    again.finish()
    assert_same_tensors(stopped.state_dict(), whole.state_dict())


def test_a_stage_with_an_average_ends_with_the_average_and_not_before() -> None:
    stage = STAGE.model_copy(update={"ema": 0.9})
    plain, averaged = make_model(), make_model()
    batches = [make_batch(Task.SEGMENTATION)]
    before = weights_of(plain)["head.stem.0.weight"]
    train(plain, batches)
    learner = make_learner(averaged, stage)
    learner.train_one_epoch(batches, epoch=0)
    assert_same_tensors(averaged.state_dict(), plain.state_dict())
    learner.finish()
    after = plain.state_dict()["head.stem.0.weight"]
    # The decay of the first step is (1 + 1) / (10 + 1).
    expected = 2 / 11 * before + 9 / 11 * after
    torch.testing.assert_close(averaged.state_dict()["head.stem.0.weight"], expected)


def test_the_average_can_be_looked_at_without_disturbing_what_learns() -> None:
    stage = STAGE.model_copy(update={"ema": 0.9, "epochs": 2})
    model = make_model()
    learner = make_learner(model, stage, steps=1)
    learner.train_one_epoch([make_batch(Task.SEGMENTATION)], epoch=0)
    before = copy.deepcopy(model.state_dict())
    with learner.averaged():
        seen = copy.deepcopy(model.state_dict())
    assert_same_tensors(model.state_dict(), before)
    learner.finish()
    assert_same_tensors(model.state_dict(), seen)
    assert not torch.equal(seen["head.stem.0.weight"], before["head.stem.0.weight"])


def test_the_learning_rate_is_that_of_the_last_step() -> None:
    stage = STAGE.model_copy(update={"epochs": 4, "warmup_fraction": 0.25})
    learner = make_learner(make_model(), stage, steps=1)
    rates = []
    for epoch in range(4):
        learner.train_one_epoch([make_batch(Task.SEGMENTATION)], epoch=epoch)
        rates.append(learner.learning_rate)
    # One step of warm-up, then a cosine over three.
    cosine = [0.5 * (1 + math.cos(math.pi * step / 3)) for step in range(3)]
    assert rates == pytest.approx([STAGE.learning_rate * factor for factor in (1.0, *cosine)])
