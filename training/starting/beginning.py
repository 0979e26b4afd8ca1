"""A run before its first step: the network, and the checkpoint that says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.checkpoint import Checkpoint, choose_classes
from training.config import Config
from training.data.taxonomy import Taxonomy
from training.environment import find_git_commit
from training.models.multitask import MultiTaskModel, build_model
from training.starting.origin import Origin
from training.starting.segment import WHOLE, Segment, carry_over, require_origin
from training.starting.takeover import Takeover, fits_whole_part, take_over

_IMAGENET_PARTS = ("backbone", "tail")  # which of the network begin with ImageNet's weights


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """A run before its first step.

    Attributes:
        checkpoint: the first one; not written yet.
        model: the network, whose weights it holds.
        takeover: what the network has taken of a file, where there is one.
    """

    checkpoint: Checkpoint
    model: MultiTaskModel
    takeover: Takeover | None = None


def begin(
    config: Config,
    taxonomy: Taxonomy,
    *,
    weights: Path | None = None,
    origin: Origin | None = None,
    segment: Segment = WHOLE,
) -> Beginning:
    """Seed, and build the network with a head for each task of the config; nothing is written.

    Args:
        config: of the run, with all stages.
        taxonomy: classes of the data.
        weights: a state dict with the backbone's ImageNet weights; None downloads them.
        origin: the file that the network starts from; ImageNet's weights are needed for what it does not hold alone.
        segment: which stages are trained.

    Raises:
        CheckpointError: nothing in the file fits, or it has not learned what comes before the segment.
        ConfigError: a stage learns a task that has no classes, or a segment that is not the first lacks a file.
        TaxonomyError: the file has learned other classes of what comes before the segment.
        WeightsError: the backbone's weights cannot be had.
    """
    taxonomy = choose_classes(config, taxonomy)
    require_origin(config, segment, origin)
    model = _build(config, taxonomy, weights, origin)
    checkpoint = Checkpoint(
        config.model_dump(mode="json"),
        find_git_commit(),
        model.state_dict(),
        stage=segment.begins,
        begins=segment.begins,
        ends=segment.ends,
        taxonomy=taxonomy,
    )
    if origin is None:
        return Beginning(checkpoint, model)
    checkpoint.origin_sha256 = origin.sha256
    takeover = take_over(model, config.model, taxonomy, origin)
    carry_over(checkpoint, takeover, origin)
    return Beginning(checkpoint, model, takeover)


def _build(config: Config, taxonomy: Taxonomy, weights: Path | None, origin: Origin | None) -> MultiTaskModel:
    if origin is not None:
        torch.manual_seed(config.seed)
        untrained = config.model.model_copy(update={"backbone_weights": "random"})
        model = build_model(untrained, taxonomy.num_classes)
        if fits_whole_part(model, origin, _IMAGENET_PARTS):
            return model
    torch.manual_seed(config.seed)
    return build_model(config.model, taxonomy.num_classes, weights=weights)
