import pickle  # noqa: TID251 - to show that it is refused
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from tests.training.fakes import make_batch, make_config, make_model
from tests.training.watched import CPU, assert_same_tensors
from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from training.config import Task
from training.data.taxonomy import MINI
from training.hooks.anchor import Anchor
from training.learner import Learner, StagePlan
from training.models.multitask import MultiTaskModel
from training.objectives import make_objective


def make_checkpoint(**changes: Any) -> Checkpoint:  # noqa: ANN401 - fields of Checkpoint
    values: dict[str, Any] = {
        "config": make_config().model_dump(mode="json"),
        "git_commit": "0123abc",
        "model": {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)},
        "stage": 1,
        "epoch": 2,
        "anchors": {"segmentation": Anchor({"weight": torch.ones(2)}, {"weight": torch.tensor([0.5, 1.5])})},
        "history": [{"kind": "epoch", "stage": "segmentation", "epoch": 1, "losses": {"loss": 0.1}}],
    }
    return Checkpoint(**values | changes, taxonomy=MINI)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = make_checkpoint()
    save_checkpoint(saved, tmp_path / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert loaded.parsed_config() == make_config()
    assert (loaded.stage, loaded.epoch, loaded.git_commit) == (1, 2, "0123abc")
    assert loaded.history == saved.history
    assert loaded.model.keys() == saved.model.keys()
    assert all(torch.equal(value, saved.model[name]) for name, value in loaded.model.items())
    anchor = loaded.anchors["segmentation"]
    assert torch.equal(anchor.parameters["weight"], torch.ones(2))
    assert torch.equal(anchor.importance["weight"], torch.tensor([0.5, 1.5]))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def make_learner(model: MultiTaskModel) -> Learner:
    stage = make_config().stages[0].model_copy(update={"ema": 0.9, "warmup_fraction": 0.5})
    objective = make_objective(make_config(), Task.SEGMENTATION, epochs=2)
    return Learner(model, StagePlan(stage, objective, steps_per_epoch=5), list, device=CPU)


def test_the_state_of_a_learner_comes_back_as_it_was(tmp_path: Path) -> None:
    model = make_model()
    learner = make_learner(model)
    learner.train_one_epoch([make_batch(Task.SEGMENTATION)], epoch=0)
    expected = learner.state_dict()
    save_checkpoint(make_checkpoint(learner=expected), tmp_path / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert loaded.learner is not None
    again = make_learner(model)
    again.load_state_dict(loaded.learner)
    found = again.state_dict()
    assert found.keys() == expected.keys() == {"optimizer", "scheduler", "balancer", "average"}
    assert found["scheduler"] == expected["scheduler"]
    assert found["balancer"] == expected["balancer"]
    assert found["average"]["steps"] == expected["average"]["steps"] == 1
    assert_same_tensors(found["average"]["average"], expected["average"]["average"])
    optimizers = again._optimizer, learner._optimizer
    rates, expected_rates = ([group["lr"] for group in each.param_groups] for each in optimizers)
    assert rates == expected_rates
    moments, wanted = (each.state[model.get_parameter("head.predict.weight")]["exp_avg"] for each in optimizers)
    assert wanted.any()
    assert torch.equal(moments, wanted)


def test_the_weights_before_the_stage_come_back_as_they_were(tmp_path: Path) -> None:
    before = make_model().state_dict()
    save_checkpoint(make_checkpoint(before=before), tmp_path / "checkpoint.pt")
    assert_same_tensors(load_checkpoint(tmp_path / "checkpoint.pt").before, before)
    assert not make_checkpoint().before


@pytest.mark.parametrize("failing", ["torch.save", "os.fsync"])
def test_a_write_that_fails_half_way_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(make_checkpoint(epoch=1), path)
    before = path.read_bytes()

    def fail(_: object, file: BinaryIO | None = None) -> None:
        if file is not None:
            file.write(b"half a checkp")
        raise OSError("no space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(make_checkpoint(epoch=2), path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    save_checkpoint(make_checkpoint(epoch=2), path)
    assert load_checkpoint(path).epoch == 2


def test_the_target_is_never_opened_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    save = torch.save

    def spy(values: object, file: BinaryIO) -> None:
        written.append(Path(file.name).name)
        save(values, file)

    monkeypatch.setattr(torch, "save", spy)
    save_checkpoint(make_checkpoint(), tmp_path / "checkpoint.pt")
    assert written == ["checkpoint.pt.tmp"]


def test_a_missing_checkpoint_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt does not exist; train first with `unihead-train run`"):
        load_checkpoint(tmp_path / "absent.pt")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "exploded")
    torch.save({"config": {}, "model": bomb}, tmp_path / "bomb.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(bomb))
    for name in ("bomb.pt", "pickle.pt"):
        with pytest.raises(CheckpointError, match=rf"{name} is not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"wrong\.pt is not a checkpoint that this version wrote"):
        load_checkpoint(tmp_path / "wrong.pt")


@pytest.mark.parametrize(
    "values",
    [
        {"features.0.0.weight": torch.zeros(1)},
        {"config": make_config().model_dump(), "git_commit": "", "model": {}, "anchors": {}, "unknown": 1},
        {"config": {"preset": "tiny", "no_such_key": 1}, "git_commit": "", "model": {}, "anchors": {}},
    ],
    ids=["bare weights", "another field", "a config of another version"],
)
def test_what_another_version_wrote_is_an_error(tmp_path: Path, values: dict[str, object]) -> None:
    torch.save(values, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is not a checkpoint that this version wrote"):
        load_checkpoint(tmp_path / "other.pt")
