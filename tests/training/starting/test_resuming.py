from pathlib import Path

import pytest

from tests.training.starting.files import make_taught_config, write_origin
from training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.starting.origin import keep_weights
from training.starting.resuming import list_sources, read_moves, reopen
from training.teachers.teacher import TeacherError


def test_a_teacher_that_has_moved_is_looked_for_where_it_lies_now(tmp_path: Path) -> None:
    config = make_taught_config("old/teacher.pt", "torchvision:resnet18")
    write_origin(tmp_path / "run.pt", config, teachers={"old/teacher.pt": "12ab", "torchvision:resnet18": "34cd"})
    found = reopen(tmp_path / "run.pt", {"old/teacher.pt": "new/teacher.pt"})
    assert list_sources(found.parsed_config()) == ["new/teacher.pt", "torchvision:resnet18"]
    assert found.teachers == {"new/teacher.pt": "12ab", "torchvision:resnet18": "34cd"}
    assert found.config | {"stages": ()} == config.model_dump(mode="json") | {"stages": ()}
    assert list_sources(reopen(tmp_path / "run.pt", {}).parsed_config()) == list_sources(config)


def test_a_teacher_that_the_run_does_not_have_cannot_have_moved(tmp_path: Path) -> None:
    write_origin(tmp_path / "run.pt", make_taught_config("old/teacher.pt"))
    with pytest.raises(TeacherError, match=r"no teacher 'odl/teacher\.pt'; it has old/teacher\.pt"):
        reopen(tmp_path / "run.pt", {"odl/teacher.pt": "new/teacher.pt"})


def test_no_run_goes_on_with_weights_alone(tmp_path: Path) -> None:
    write_origin(tmp_path / "run.pt")
    save_checkpoint(keep_weights(load_checkpoint(tmp_path / "run.pt")), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt holds weights alone, .*; begin one with --init-from"):
        reopen(tmp_path / "weights.pt", {})


def test_moves_are_pairs() -> None:
    assert read_moves(["a.pt=b.pt", "efficientnet_lite0=c=d.onnx"]) == {
        "a.pt": "b.pt",
        "efficientnet_lite0": "c=d.onnx",
    }
    for word in ("a.pt", "=b.pt", "a.pt="):
        with pytest.raises(TeacherError, match=rf"--teacher wants OLD=NEW.*got '{word}'"):
            read_moves([word])
