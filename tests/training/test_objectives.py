import pytest
import torch

from tests.training.fakes import make_batch, make_branches_config, make_config, make_model
from training.config import Config, Task
from training.objectives import make_objective

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
