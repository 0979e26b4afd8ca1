import pytest
import torch

from tests.training.continual.stage import HEADS, disturb, find_gradients, make_config, make_context, make_step
from training.config import Config, Task
from training.continual.replay import Replay
from training.objectives import make_objective


def replay(head: str = "unified", **changes: object) -> Config:
    return make_config({"replay": {"pictures": 3, "batch": 6} | changes}, head=head)


@pytest.mark.parametrize("head", HEADS)
def test_stored_outputs_cost_nothing_until_the_network_moves(head: str) -> None:
    context = make_context(replay(head, labels=0.0))
    hook = Replay(context)
    still = hook.losses(make_step(context.model))
    assert still.keys() == {"replay/outputs"}
    assert still["replay/outputs"].item() == pytest.approx(0, abs=1e-5)
    disturb(context.model, "backbone.")
    assert hook.losses(make_step(context.model))["replay/outputs"] > 1e-3


def test_outputs_are_those_from_before_the_stage_also_when_a_killed_run_goes_on() -> None:
    context = make_context(replay(labels=0.0))
    began = Replay(context)
    disturb(context.model, "backbone.")
    resumed = Replay(context)
    step = make_step(context.model)
    torch.testing.assert_close(resumed.losses(step), began.losses(step))


def test_labels_are_learned_as_their_own_stage_ended() -> None:
    context = make_context(replay(outputs=0.0, labels=2.0))
    hook = Replay(context)
    model = context.model.eval()
    losses = []
    for task, batch in hook._memory.batches.items():
        objective = make_objective(context.config, task, epochs=2)
        logits = model.head.answer(model.extract(batch.images), task)
        losses.append(sum(part.item() for part in objective(logits, batch, 1).values()))
    # All six pictures are drawn, three a task: the mean of the two tasks, times the weight.
    found = hook.losses(make_step(model))
    assert found.keys() == {"replay/labels"}
    assert found["replay/labels"].item() == pytest.approx(2 * sum(losses) / 2, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_the_shared_weights(head: str) -> None:
    context = make_context(replay(head))
    hook = Replay(context)
    disturb(context.model, "backbone.")
    for part in hook.losses(make_step(context.model)).values():
        assert any(name.startswith("backbone.") for name in find_gradients(part, context.model))


def test_each_picture_is_compared_with_its_own_output() -> None:
    context = make_context(replay(labels=0.0, batch=1))
    hook = Replay(context)
    for step in range(8):
        (drawn,) = hook._memory.draw(step / 8)
        for other in {0, 1, 2} - set(drawn.rows):
            hook._outputs[drawn.task][other] += 100  # what belongs to the pictures that were not drawn is not looked at
        loss = hook.losses(make_step(context.model, progress=step / 8))["replay/outputs"]
        assert loss.item() == pytest.approx(0, abs=1e-5)
        hook = Replay(context)


def test_only_earlier_tasks_are_remembered_and_never_more_than_asked_for() -> None:
    hook = Replay(make_context(replay(), pictures=12))
    assert set(hook._outputs) == {Task.SEGMENTATION, Task.DETECTION}
    assert all(len(output) == 3 for output in hook._outputs.values())
    assert not any(output.requires_grad for output in hook._outputs.values())
    assert torch.isfinite(hook._outputs[Task.DETECTION]).all()
