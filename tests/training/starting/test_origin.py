import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.fakes import make_branches_config
from tests.training.starting.files import make_network, write_origin
from tests.training.watched import assert_same_tensors
from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from training.config import load_config
from training.data.taxonomy import MINI
from training.hooks.anchor import Anchor
from training.inference import restore_model
from training.models.multitask import build_model
from training.starting.origin import find_checkpoint, keep_weights, open_origin


def test_a_checkpoint_is_read_with_what_it_says_of_itself(tmp_path: Path) -> None:
    model = write_origin(tmp_path / "checkpoint.pt", stage=2)
    for path in (tmp_path, tmp_path / "checkpoint.pt"):
        origin = open_origin(path)
        assert_same_tensors(origin.state, model.state_dict())
        assert origin.checkpoint is not None
        assert origin.checkpoint.learned == ("segmentation", "detection")
        assert origin.path == find_checkpoint(path) == tmp_path / "checkpoint.pt"
        assert origin.sha256 == hashlib.sha256((tmp_path / "checkpoint.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_state_dict_is_read_where_others_keep_it(tmp_path: Path, wrapper: str | None) -> None:
    state = {"backbone.0.0.weight": torch.ones(2), "neck.0.bias": torch.zeros(3)}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "weights.pth")
    origin = open_origin(tmp_path / "weights.pth")
    assert_same_tensors(origin.state, state)
    assert origin.checkpoint is None


@pytest.mark.parametrize("values", [[torch.ones(2)], {"epoch": 3}, {}, {1: torch.ones(2)}, torch.ones(2)])
def test_what_holds_no_tensors_by_name_is_refused(tmp_path: Path, values: object) -> None:
    torch.save(values, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt holds no weights; wanted a checkpoint, or tensors by their"):
        open_origin(tmp_path / "other.pt")


def test_what_is_missing_no_file_of_torch_or_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    torch.save({"config": {"speed": 1}, "model": {}, "git_commit": "", "anchors": {}}, tmp_path / "broken.pt")
    for name, words in (
        ("absent.pt", "does not exist; wanted a checkpoint or a file of weights"),
        ("text.pt", "holds no weights: "),
        ("broken.pt", "is not a checkpoint that this version wrote"),
    ):
        with pytest.raises(CheckpointError, match=rf"{name} {words}"):
            open_origin(tmp_path / name)


def make_busy_checkpoint() -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """Within a stage that averages: all that a checkpoint may hold, and the average."""
    model = make_network(make_branches_config())
    average = {name: value + 1 for name, value in model.state_dict().items()}
    anchor = Anchor({"weight": torch.ones(2)}, {"weight": torch.ones(2)})
    evaluation = {"kind": "evaluation", "stage": "segmentation", "metrics": {"segmentation": {"mean_iou": 0.5}}}
    checkpoint = Checkpoint(
        make_branches_config().model_dump(mode="json"),
        "0123abc",
        model.state_dict(),
        stage=1,
        epoch=1,
        learner={"optimizer": {"moments": torch.ones(5)}, "average": {"steps": 3, "average": average}},
        position={"steps": 1},
        before=model.state_dict(),
        anchors={"segmentation": anchor},
        history=[{"kind": "epoch", "stage": "segmentation"}, evaluation, {"kind": "epoch", "stage": "detection"}],
        pictures={"segmentation": 6},
        taxonomy=MINI.keep([]),
    )
    return checkpoint, average


def test_of_a_stage_that_is_under_way_the_average_is_taken(tmp_path: Path) -> None:
    checkpoint, average = make_busy_checkpoint()
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    assert_same_tensors(open_origin(tmp_path / "checkpoint.pt").state, average)


def test_weights_alone_are_half_the_size_and_know_what_was_learned(tmp_path: Path) -> None:
    checkpoint, average = make_busy_checkpoint()
    save_checkpoint(keep_weights(checkpoint), tmp_path / "weights.pt")
    kept = load_checkpoint(tmp_path / "weights.pt")
    assert_same_tensors(
        kept.model, {name: value.half() if value.is_floating_point() else value for name, value in average.items()}
    )
    assert (kept.stage, kept.epoch, kept.learned, kept.weights_only) == (1, 0, ("segmentation",), True)
    assert (kept.learner, kept.position, kept.before, kept.anchors) == (None, None, {}, {})
    assert kept.history == [checkpoint.history[1]]
    assert (kept.config, kept.git_commit, kept.pictures) == (checkpoint.config, "0123abc", {"segmentation": 6})
    assert checkpoint.model["backbone.0.0.weight"].dtype is torch.float32


def test_what_half_precision_cannot_hold_stays_as_it_is(tmp_path: Path) -> None:
    write_origin(tmp_path / "checkpoint.pt")
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    checkpoint.model["backbone.0.1.running_var"][0] = 1e5
    kept = keep_weights(checkpoint)
    assert kept.model["backbone.0.1.running_var"].dtype is torch.float32
    assert restore_model(kept).state_dict()["backbone.0.1.running_var"][0] == 1e5


def test_the_weights_of_the_default_network_are_4_mb_at_most(tmp_path: Path) -> None:
    config: Any = load_config("default")
    network = build_model(config.model.model_copy(update={"backbone_weights": "random"}), MINI.num_classes)
    metrics = {f"metric_{number}": number / 7 for number in range(12)}
    history = [{"kind": "evaluation", "stage": "detection", "metrics": dict.fromkeys("abc", metrics)}] * 4
    whole = Checkpoint(
        config.model_dump(mode="json"), "0" * 12, network.state_dict(), stage=3, history=history, taxonomy=MINI
    )
    save_checkpoint(keep_weights(whole), tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").stat().st_size <= 4_000_000
