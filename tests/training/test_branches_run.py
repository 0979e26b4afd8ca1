"""A whole run of the network with a pyramid and branches, as the preset `default` is one, in small."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.training.fakes import make_branches_config, make_images
from tests.training.there import there
from tests.training.watched import (
    CPU,
    KilledError,
    assert_same_run,
    assert_same_tensors,
    finish,
    kill_after_batches,
    kill_at,
)
from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.config import Task
from training.data.datasets import DataSets
from training.data.taxonomy import MINI
from training.inference import TorchSession
from training.models.heads import TaskLogits
from training.stages import Run

pytestmark = pytest.mark.slow


class Seen(NamedTuple):
    """The network after an epoch or an evaluation: its weights, and what it says about two pictures."""

    entry: dict[str, Any]
    state: dict[str, Tensor]
    logits: TaskLogits
    answers: Mapping[str, Any]


@pytest.fixture(scope="module")
def watched_run(sets: DataSets, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Seen]]:
    """Folder of the run, and what was seen in it; not to be changed."""
    out = tmp_path_factory.mktemp("branches")
    config = make_branches_config()
    run = Run.start(config, out, CPU, taxonomy=MINI)
    seen: list[Seen] = []

    def on_entry(entry: Mapping[str, Any]) -> None:
        model = deepcopy(run._model).eval()
        images = make_images(2)
        with torch.inference_mode():
            logits = model(images)
        answers = TorchSession(model, config, CPU).run(images.numpy())
        seen.append(Seen(dict(entry), model.state_dict(), logits, answers))

    finish(run, sets, out, on_entry=on_entry)
    return out, seen


def since_detection(seen: list[Seen]) -> list[Seen]:
    """What was seen from the end of the second stage on."""
    kinds = [(each.entry["kind"], each.entry["stage"]) for each in seen]
    return seen[kinds.index(("evaluation", "detection")) :]


def test_a_stage_that_trains_its_branch_alone_leaves_the_other_answers_as_they_are_to_the_bit(
    watched_run: tuple[Path, list[Seen]],
) -> None:
    first, *later = since_detection(watched_run[1])
    assert [each.entry["kind"] for each in later] == ["epoch", "epoch", "evaluation"]
    for each in later:
        assert torch.equal(there(each.logits.segmentation), there(first.logits.segmentation))
        assert torch.equal(there(each.logits.detection), there(first.logits.detection))
        assert not torch.equal(there(each.logits.classification), there(first.logits.classification))
        for name in ("boxes", "scores", "labels", "num_detections", "mask"):
            assert each.answers[name].tobytes() == first.answers[name].tobytes()


def test_nothing_but_that_branch_has_moved_not_even_the_statistics(watched_run: tuple[Path, list[Seen]]) -> None:
    first, *_, last = since_detection(watched_run[1])
    moved = {name for name, value in last.state.items() if not torch.equal(value, first.state[name])}
    assert moved == {f"head.classification.predict.{part}" for part in ("weight", "bias")}


def test_and_their_metrics_are_the_same_figures(watched_run: tuple[Path, list[Seen]]) -> None:
    evaluations = [each.entry["metrics"] for each in watched_run[1] if each.entry["kind"] == "evaluation"]
    assert [list(metrics) for metrics in evaluations] == [[str(task) for task in Task][:count] for count in (1, 2, 3)]
    assert evaluations[2]["segmentation"] == evaluations[1]["segmentation"]
    assert evaluations[2]["detection"] == evaluations[1]["detection"]


def test_the_second_stage_learns_from_labels_and_from_the_network_as_it_was(
    watched_run: tuple[Path, list[Seen]],
) -> None:
    losses = {each.entry["stage"]: each.entry["losses"] for each in watched_run[1] if each.entry["kind"] == "epoch"}
    assert losses["segmentation"].keys() == {"segmentation", "mask_boxes/score", "mask_boxes/box", "loss"}
    assert losses["detection"].keys() == {"score", "box", "lwf/segmentation", "loss"}
    assert losses["classification"].keys() == {"classification", "loss"}


def test_a_stage_ends_with_the_average_of_its_weights(watched_run: tuple[Path, list[Seen]]) -> None:
    last_epoch, evaluation = watched_run[1][1:3]
    assert (last_epoch.entry["kind"], evaluation.entry["kind"]) == ("epoch", "evaluation")
    assert not torch.equal(
        last_epoch.state["head.segmentation.predict.weight"], evaluation.state["head.segmentation.predict.weight"]
    )


def test_the_checkpoint_has_the_weights_before_the_last_stage(watched_run: tuple[Path, list[Seen]]) -> None:
    out, seen = watched_run
    checkpoint = load_checkpoint(out / CHECKPOINT_NAME)
    assert_same_tensors(checkpoint.before, since_detection(seen)[0].state)
    assert_same_tensors(checkpoint.model, seen[-1].state)
    assert not checkpoint.anchors


@pytest.mark.parametrize(
    "watch",
    [
        {"on_entry": kill_at("evaluation", Task.SEGMENTATION)},
        {"on_batch": kill_after_batches(3 * 2 + 3 + 1)},
        {"on_entry": kill_at("epoch", Task.CLASSIFICATION, 2)},
    ],
    ids=["after the average was put in place", "while the network before teaches", "last epoch"],
)
def test_a_killed_run_goes_on_to_the_same_end(
    sets: DataSets, watched_run: tuple[Path, list[Seen]], tmp_path: Path, watch: dict[str, Any]
) -> None:
    with pytest.raises(KilledError):
        finish(Run.start(make_branches_config(), tmp_path, CPU, taxonomy=MINI), sets, tmp_path, **watch)
    assert load_checkpoint(tmp_path / CHECKPOINT_NAME).stage < 3
    torch.manual_seed(99)  # another process has another state of chance
    finish(Run.resume(tmp_path, CPU), sets, tmp_path)
    assert_same_run(tmp_path, watched_run[0])
