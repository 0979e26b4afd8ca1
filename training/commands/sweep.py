"""`unihead-train sweep`: which threshold NMS should have, by pictures that are kept for choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table
from torch import Tensor

from service.engine.contract import LetterboxRule
from service.pictures.imaging import letterbox
from training.checkpoint import CheckpointError, load_checkpoint
from training.commands.options import DataOption, DeviceOption, RootOption
from training.config import Config, Task
from training.console import choose_device, console, failures_in_one_sentence, read
from training.data.datasets import DetectionSample, SplitName, load_image
from training.data.taxonomy import require_same_classes
from training.inference import DenseOutputs, Predictor, restore_model, select_detections
from training.metrics.detection import AveragePrecision, DetectionMetrics
from training.metrics.operating import OperatingPoint, find_best_threshold, measure_at

IOU_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def sweep(
    data: DataOption,
    checkpoint: Annotated[Path, typer.Option(help="checkpoint.pt of a run.")],
    root: RootOption = None,
    iou_threshold: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="Give it once for each; if not given 0.4, 0.45, ... 0.7."),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="The pictures to measure on.")] = "choose",
    device: DeviceOption = "auto",
) -> None:
    """Measure boxes after NMS with several thresholds, from one forward pass a picture; change nothing.

    Precision, recall and duplicates are those at the threshold of the best F1.
    """
    chosen = choose_device(device)
    with failures_in_one_sentence():
        sets, loaded = read(data, root), load_checkpoint(checkpoint)
        if Task.DETECTION not in loaded.learned:
            raise CheckpointError(f"{checkpoint} has not learned detection, and NMS is for boxes")
        config, network = loaded.parsed_config(), restore_model(loaded)
        require_same_classes(
            loaded.taxonomy,
            sets.taxonomy,
            [Task.DETECTION],
            owner=str(checkpoint),
            mine="the file",
            advice="name the data that it learned from",
        )
        samples = sets.pictures([Task.DETECTION], split)[Task.DETECTION]
        pictures = [sample for sample in samples if isinstance(sample, DetectionSample)]
        predictor = Predictor(network, config).to(chosen).eval()
        found = sweep_nms(
            predictor, config, len(loaded.taxonomy.detection), pictures, iou_threshold or IOU_THRESHOLDS, chosen
        )
    figures = ("mAP@0.5", "mAP", "score threshold", "precision", "recall", "F1", "boxes", "duplicates a picture")
    table = Table("IoU threshold", *figures, title=f"{len(pictures)} pictures of {split}")
    for iou, metrics, point in found:
        table.add_row(f"{iou:g}", f"{metrics.map_50:.4f}", f"{metrics.map_50_95:.4f}", *_show(point))
    console.print(table)


def _show(point: OperatingPoint) -> list[str]:
    shares = (point.precision, point.recall, point.f1, point.boxes_per_picture, point.duplicates_per_picture)
    return [f"{point.score_threshold:.2f}", *(f"{share:.3f}" for share in shares)]


def sweep_nms(
    predictor: Callable[[Tensor], DenseOutputs],
    config: Config,
    num_classes: int,
    samples: Sequence[DetectionSample],
    iou_thresholds: Sequence[float],
    device: torch.device,
) -> list[tuple[float, DetectionMetrics, OperatingPoint]]:
    """Measure what each threshold of NMS leaves of the same candidates.

    Args:
        predictor: from [N, S, S, 3] uint8 RGB, letterboxed, to answers before NMS.
        config: the input's side, and all that NMS does beside its threshold.
        num_classes: that boxes may have.
        samples: pictures with boxes.
        iou_thresholds: each 0..1.
        device: that the predictor runs on.

    Returns:
        The IoU threshold, average precision, and the operating point of the best F1, in the order of the thresholds.

    Raises:
        DataError: a picture cannot be read.
        UncalibratedError: no box is right.
    """
    variants = [config.inference.model_copy(update={"iou_threshold": iou}) for iou in iou_thresholds]
    counted = [AveragePrecision(num_classes) for _ in variants]
    with torch.inference_mode():
        for sample in samples:
            square, place = letterbox(load_image(sample.image), config.input_size, LetterboxRule().fill)
            dense = predictor(torch.from_numpy(square[None]).to(device))
            parts = [part[0].cpu() for part in (dense.boxes, dense.scores, dense.labels) if part is not None]
            candidates, chances, classes = parts
            for variant, precision in zip(variants, counted, strict=True):
                kept = select_detections(candidates, chances, classes, variant)
                boxes, scores, labels = (part.numpy() for part in kept)
                precision.add_sample(sample, boxes=place.boxes_to_original(boxes), scores=scores, labels=labels)
    found = []
    for iou, precision in zip(iou_thresholds, counted, strict=True):
        judged = precision.judge_boxes()
        found.append((iou, precision.compute(), measure_at(judged, find_best_threshold(judged))))
    return found
