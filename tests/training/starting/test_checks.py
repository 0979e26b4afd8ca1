from pathlib import Path
from typing import Any

import pytest

from tests.training.fakes import make_branches_config, make_config
from tests.training.starting.files import make_taught_config, write_origin
from tests.training.there import there
from tests.training.watched import CPU, KilledError, finish, kill_at
from training.checkpoint import CHECKPOINT_NAME, Checkpoint
from training.config import Config, Task
from training.data.datasets import DataSets
from training.files import CACHE_VARIABLE, hash_file
from training.stages import Run
from training.starting.beginning import begin
from training.starting.checks import (
    ResourceError,
    Tried,
    estimate_checkpoint_bytes,
    estimate_picture_bytes,
    require_disk,
    require_memory,
    try_teachers,
)
from training.teachers.teacher import TeacherError

MIB = 2**20
NO_TEACHERS = Tried({}, 0)


def try_all(config: Config, sets: DataSets, known: dict[str, str] | None = None) -> Tried:
    return try_teachers(config, sets, CPU, begins=0, ends=3, known=known)


def test_every_teacher_answers_about_a_picture_and_its_sha256_is_noted(sets: DataSets, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    write_origin(path, taxonomy=sets.taxonomy)
    config = make_taught_config(str(path), str(path), stage=0)
    assert try_all(config, sets).sha256 == {str(path): hash_file(path)}
    one = try_all(make_taught_config(str(path), stage=0), sets).answer_bytes
    assert one % (len(there(sets.segmentation).train) * len(sets.taxonomy.segmentation) * 2) == 0
    assert try_all(config, sets).answer_bytes == 2 * one > 0


@pytest.mark.parametrize(
    ("source", "teacher", "sentence"),
    [
        ("absent.pt", {}, r"stage classification: the teacher .*absent\.pt cannot be restored"),
        ("efficientnet_lite7", {}, "stage classification: 'efficientnet_lite7' is no teacher"),
        ("early.pt", {}, r"has learned \['segmentation'\]; wanted classification"),
        ("strange.pt", {}, "does not know the data's classes of classification"),
        ("whole.pt", {"task": "detection"}, r"whole\.pt' cannot teach detection; wanted FILE\.toml"),
    ],
)
def test_a_teacher_that_cannot_teach_is_told_with_its_stage(
    sets: DataSets, tmp_path: Path, source: str, teacher: dict[str, Any], sentence: str
) -> None:
    write_origin(tmp_path / "early.pt", taxonomy=sets.taxonomy, stage=1)
    write_origin(tmp_path / "strange.pt")
    write_origin(tmp_path / "whole.pt", taxonomy=sets.taxonomy)
    place = str(tmp_path / source) if source.endswith(".pt") else source
    with pytest.raises(TeacherError, match=sentence) as caught:
        try_all(make_taught_config(place, **teacher), sets)
    assert "--teacher" not in str(caught.value)


def test_a_teacher_of_a_stage_that_is_not_trained_is_left_alone(sets: DataSets) -> None:
    config = make_taught_config("absent.pt", stage=0)
    assert try_teachers(config, sets, CPU, begins=1, ends=3, known={}) == NO_TEACHERS
    config = make_taught_config("absent.pt", stage=2)
    assert try_teachers(config, sets, CPU, begins=0, ends=2, known={}) == NO_TEACHERS


def test_a_run_goes_on_with_the_teacher_that_it_was_begun_with(sets: DataSets, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    write_origin(path, taxonomy=sets.taxonomy)
    config, known = make_taught_config(str(path)), {str(path): hash_file(path)}
    assert try_all(config, sets, known).sha256 == known
    write_origin(path, taxonomy=sets.taxonomy, seed=8)
    with pytest.raises(
        TeacherError, match=r"not the one that the run was begun with: its SHA-256 was \w{12}\.\.\., and"
    ):
        try_all(config, sets, known)
    path.unlink()
    with pytest.raises(TeacherError, match=r"teacher\.pt cannot be restored.*say so with --teacher \S+teacher\.pt=NEW"):
        try_all(config, sets, known)


@pytest.fixture
def checkpoint(sets: DataSets) -> Checkpoint:
    return begin(make_branches_config(), sets.taxonomy).checkpoint


def test_the_disk_holds_two_checkpoints_or_the_run_does_not_begin(checkpoint: Checkpoint, tmp_path: Path) -> None:
    needed, out = 2 * estimate_checkpoint_bytes(checkpoint), tmp_path / "new" / "run"
    require_disk(out, checkpoint, free_bytes=needed)
    require_disk(out, checkpoint)
    with pytest.raises(ResourceError, match=rf"{out} has 5 MiB free, and two checkpoints need {needed / MIB:.0f} MiB"):
        require_disk(out, checkpoint, free_bytes=5 * MIB)
    assert not out.parent.exists()
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"x" * MIB)  # a run that goes on has one of the two
    require_disk(tmp_path, checkpoint, free_bytes=needed - MIB)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_within_a_stage_is_as_large_as_was_estimated(sets: DataSets, tmp_path: Path, ema: float) -> None:
    stages = [
        {"task": "segmentation", "epochs": 1, "batch_size": 6},
        {"task": "classification", "epochs": 1, "batch_size": 6, "ema": ema, "ewc": {"strength": {"segmentation": 1}}},
    ]
    run = Run.start(make_config(stages=stages), tmp_path, CPU, taxonomy=sets.taxonomy)
    estimated = estimate_checkpoint_bytes(run.checkpoint)
    with pytest.raises(KilledError):
        finish(run, sets, tmp_path, on_entry=kill_at("evaluation", Task.CLASSIFICATION))
    assert (tmp_path / CHECKPOINT_NAME).stat().st_size == pytest.approx(estimated, rel=0.1)


def test_memory_is_asked_for_pictures_and_answers(checkpoint: Checkpoint, sets: DataSets) -> None:
    pictures = estimate_picture_bytes(make_branches_config(), sets, make_branches_config().stages)
    tried = Tried({}, 3 * MIB)
    require_memory(checkpoint, sets, tried, limit_bytes=pictures + 3 * MIB)
    with pytest.raises(
        ResourceError, match=r"there are 0\.0 GiB of memory, and a run of preset tiny keeps 0\.0 GiB of"
    ):
        require_memory(checkpoint, sets, tried, limit_bytes=pictures + 3 * MIB - 1)


def test_answers_that_a_disk_has_room_for_need_no_memory(
    checkpoint: Checkpoint, sets: DataSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "none" / "yet"))
    pictures = estimate_picture_bytes(make_branches_config(), sets, make_branches_config().stages)
    require_memory(checkpoint, sets, Tried({}, 3 * MIB), limit_bytes=pictures)
    with pytest.raises(ResourceError, match="of teachers' answers"):
        require_memory(checkpoint, sets, Tried({}, 2**60), limit_bytes=pictures)


def test_pictures_take_what_they_are_decoded_or_the_cache_holds(sets: DataSets) -> None:
    config = make_branches_config()
    segmentation, detection, _ = config.stages
    both = estimate_picture_bytes(config, sets, (segmentation, detection))
    masks = estimate_picture_bytes(config, sets, (segmentation,))
    assert both - masks == estimate_picture_bytes(config, sets, (detection,)) > 0
    assert masks % 4 == 0  # three bytes of a pixel and one of its mask
    small = make_branches_config(cache_mib=0)
    assert estimate_picture_bytes(small, sets, small.stages) == 0


def test_stages_that_are_done_are_asked_for_no_memory(checkpoint: Checkpoint, sets: DataSets) -> None:
    checkpoint.stage = 3
    require_memory(checkpoint, sets, NO_TEACHERS, limit_bytes=0)
