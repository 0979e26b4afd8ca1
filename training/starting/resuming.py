"""A run that goes on: its checkpoint, with teachers that may lie elsewhere now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from training.config import Config, StageConfig
from training.teachers.teacher import TeacherError


def reopen(path: Path, moved: Mapping[str, str]) -> Checkpoint:
    """Load what a run goes on from.

    Args:
        path: of the checkpoint.
        moved: where teachers lie now, by their sources until now.

    Raises:
        CheckpointError: there is none, or it holds weights alone.
        TeacherError: the run has no teacher of such a source.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.weights_only:
        raise CheckpointError(f"{path} holds weights alone, a run cannot go on with them; begin one with --init-from")
    if moved:
        config = checkpoint.parsed_config()
        checkpoint.config = _move(config, moved).model_dump(mode="json")
        checkpoint.teachers = {moved.get(source, source): sha256 for source, sha256 in checkpoint.teachers.items()}
    return checkpoint


def read_moves(words: list[str]) -> dict[str, str]:
    """Read OLD=NEW, given once per teacher.

    Raises:
        TeacherError: a word is none.
    """
    moves = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise TeacherError(f"--teacher wants OLD=NEW, its source until now and the one from now on; got {word!r}")
        moves[old] = new
    return moves


def list_sources(config: Config) -> list[str]:
    """The sources of all teachers, each once."""
    return list(dict.fromkeys(teacher.source for stage in config.stages for teacher in stage.teachers))


def _move(config: Config, moved: Mapping[str, str]) -> Config:
    sources = list_sources(config)
    if strangers := [old for old in moved if old not in sources]:
        raise TeacherError(f"the run has no teacher {strangers[0]!r}; it has {', '.join(sources) or 'none'}")

    def move(stage: StageConfig) -> StageConfig:
        teachers = tuple(
            teacher.model_copy(update={"source": moved.get(teacher.source, teacher.source)})
            for teacher in stage.teachers
        )
        return stage.model_copy(update={"teachers": teachers})

    return config.model_copy(update={"stages": tuple(move(stage) for stage in config.stages)})
