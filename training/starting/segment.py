"""A segment: those stages of a config that one run trains, where a file has learned the ones before them."""

from __future__ import annotations

from dataclasses import dataclass

from training.checkpoint import Checkpoint, CheckpointError
from training.config import Config, ConfigError, Task
from training.continual.ewc import EARLIER
from training.data.taxonomy import require_same_classes
from training.options.polish import POLISH
from training.starting.origin import Origin
from training.starting.takeover import Takeover


@dataclass(frozen=True, slots=True)
class Segment:
    """Which stages a run trains.

    Attributes:
        begins: index of the first.
        ends: index of the one before which it ends, the polish counted as one more; None: all that follow.
    """

    begins: int = 0
    ends: int | None = None


WHOLE = Segment()


def choose_segment(config: Config, stage: str | None, through: str | None) -> Segment:
    """Read the options --stage and --through.

    Args:
        config: with all its stages.
        stage: task of the first stage that is trained, or "polish"; None: the config's first.
        through: the last one; None: `stage`, or where that is not given either, the config's last.

    Raises:
        ConfigError: there is no such stage, or the last comes before the first.
    """
    names = [*(str(one.task) for one in config.stages), *([POLISH] if config.polish.epochs else [])]
    for wanted in (stage, through):
        if wanted is not None and wanted not in names:
            raise ConfigError(f"preset {config.preset} has no stage {wanted!r}; it has {', '.join(names)}")
    begins = names.index(stage) if stage else 0
    last = through or stage
    if last is None:
        return WHOLE
    if names.index(last) < begins:
        raise ConfigError(f"--through {last} comes before --stage {stage} in preset {config.preset}")
    return Segment(begins, names.index(last) + 1)


def require_origin(config: Config, segment: Segment, origin: Origin | None) -> None:
    """See that the file has learned all that comes before a segment.

    Raises:
        CheckpointError: it has not, or does not say what it has learned.
        ConfigError: there is no file.
    """
    earlier = _earlier(config, segment)
    if not earlier:
        return
    if origin is None:
        raise ConfigError(
            f"what comes before the segment, {' and '.join(earlier)}, has to be learned: give what has learned it with "
            "--init-from, or begin without --stage"
        )
    if origin.checkpoint is None:
        raise CheckpointError(
            f"{origin.path} is no checkpoint of ours, and does not say that it has learned {earlier[0]}"
        )
    if lacking := [task for task in earlier if task not in origin.checkpoint.learned]:
        known = " and ".join(origin.checkpoint.learned) or "nothing"
        raise CheckpointError(f"{origin.path} has learned {known}; wanted one that has learned {lacking[0]} too")


def carry_over(checkpoint: Checkpoint, takeover: Takeover, origin: Origin) -> None:
    """Give a run's first checkpoint what its segment has to know of the tasks learned before.

    These are their evaluations, so that what is forgotten from here on is counted from their own stages, and their
    anchors of elastic weight consolidation.

    Args:
        checkpoint: changed in place.
        takeover: what its network has taken of the file.
        origin: the file; see `require_origin`.

    Raises:
        CheckpointError: the network of these tasks is another one, or it lacks an anchor that a stage asks for.
        TaxonomyError: their classes are others.
    """
    source, config = origin.checkpoint, checkpoint.parsed_config()
    earlier = _earlier(config, Segment(checkpoint.begins))
    if source is None or not earlier:
        return
    advice = "go on with the same classes, or begin without --stage"
    require_same_classes(
        source.taxonomy, checkpoint.taxonomy, earlier, owner=str(origin.path), mine="the file", advice=advice
    )
    if strangers := [one.name for one in takeover.tensors if one.anew & set(earlier)]:
        raise CheckpointError(
            f"{origin.path} has another network for what it has learned: {strangers[0]} does not fit, "
            f"and {len(strangers) - 1} more; begin without --stage to take what fits"
        )
    last = {entry["stage"]: entry for entry in source.evaluations if entry["stage"] in earlier}
    if unmeasured := [task for task in earlier if task not in last]:
        raise CheckpointError(f"{origin.path} does not say how well it has learned {unmeasured[0]}")
    checkpoint.history = list(last.values())
    # Online there is one anchor for all; about more than what comes before the segment it would hold on to too much.
    usable = {*map(str, earlier), *([EARLIER] if set(source.learned) == set(earlier) else [])}
    checkpoint.anchors = {label: anchor for label, anchor in source.anchors.items() if label in usable}
    for stage in config.stages[checkpoint.begins : checkpoint.end]:
        wanted = {str(task) for task in earlier if stage.ewc.strength.get(task)}
        if lacking := sorted(({EARLIER} if stage.ewc.online and wanted else wanted) - checkpoint.anchors.keys()):
            raise CheckpointError(
                f"stage {stage.task} holds on to what it has learned by ewc, and {origin.path} has no importance of "
                f"weights for {lacking[0]}: start from the checkpoint.pt of a run whose preset has this stage too"
            )


def _earlier(config: Config, segment: Segment) -> list[Task]:
    return [stage.task for stage in config.stages[: segment.begins]]
