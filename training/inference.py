"""From pictures to answers in torch, through the same seam as the service's ONNX file: `engine.Session`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

from service.engine.contract import ModelContract, ModelTask
from service.engine.engine import Engine, load_engine
from service.pictures.imaging import UInt8Array
from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from training.config import Config, InferenceConfig, Task
from training.data.datasets import DataError, DataSets
from training.data.taxonomy import Taxonomy, require_same_classes
from training.detection.schemes import build_scheme, take_points
from training.models.heads import TaskLogits
from training.models.multitask import MultiTaskModel, build_model

# What the service calls a task.
_ASKED: dict[Task, ModelTask] = {
    Task.SEGMENTATION: "segment",
    Task.DETECTION: "detect",
    Task.CLASSIFICATION: "classify",
}


class DenseOutputs(NamedTuple):
    """Answers before NMS, None of tasks that were not trained; a candidate is a point's box for one class.

    Attributes:
        boxes: [N, K, 4] xyxy, clipped to the input; in input pixels; K is at most `max_candidates`.
        scores: [N, K] 0..1, calibrated, highest first.
        labels: [N, K] class indices.
        mask: [N, S / mask_stride, S / mask_stride] uint8 class ids.
        class_probs: [N, P] sums to 1.
    """

    boxes: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None
    class_probs: Tensor | None = None


class Predictor(nn.Module):
    """The network and everything after it that works cell by cell; export traces this module."""

    def __init__(self, model: MultiTaskModel, config: Config) -> None:
        super().__init__()
        self.model = model
        self._scheme = build_scheme(config)
        # A network of an older version has heads that no stage has trained.
        self._tasks = frozenset(stage.task for stage in config.stages)
        self._input_size = config.input_size
        self._mask_size = config.input_size // config.inference.mask_stride
        self._config = config.inference

    def names_of_outputs(self, others: Mapping[str, str]) -> list[str]:
        """The names of the outputs that there are, in their order, or the others by which they are to go."""
        of = {"mask": Task.SEGMENTATION, "class_probs": Task.CLASSIFICATION}
        there = self._tasks & set(self.model.num_classes)
        return [others.get(name, name) for name in DenseOutputs._fields if of.get(name, Task.DETECTION) in there]

    def forward(self, images: Tensor) -> DenseOutputs:
        """[N, S, S, 3] uint8 RGB, letterboxed, to dense answers."""
        logits: TaskLogits = self.model(images)
        found = DenseOutputs()
        if logits.segmentation is not None and Task.SEGMENTATION in self._tasks:
            size = (self._mask_size, self._mask_size)
            upsampled = F.interpolate(logits.segmentation, size=size, mode="bilinear", align_corners=False)
            found = found._replace(mask=upsampled.argmax(dim=1).to(torch.uint8))
        if logits.detection is not None and Task.DETECTION in self._tasks:
            limit = self._config.max_candidates
            # The K best pairs of a point and a class lie at the K best points.
            boxes, scores = self._scheme.decode(logits.detection, input_size=self._input_size, limit=limit)
            boxes, scores, labels = select_candidates(boxes, scores, limit)
            found = found._replace(boxes=boxes, scores=calibrate_scores(scores, self._config), labels=labels)
        if logits.classification is not None and Task.CLASSIFICATION in self._tasks:
            temperature = self._config.class_temperature
            cooled = logits.classification if temperature == 1 else logits.classification / temperature
            found = found._replace(class_probs=cooled.softmax(dim=-1))
        return found


def calibrate_scores(scores: Tensor, config: InferenceConfig) -> Tensor:
    """Turn the network's scores into chances of being right, of the same order (Platt scaling).

    After the best candidates are chosen, because of them there are hundreds, and of all logits tens of thousands.

    Args:
        scores: [...] 0..1.
        config: scale and bias of their logits; with 1 and 0 the scores stay as they are, and so does the graph.
    """
    if (config.score_scale, config.score_bias) == (1, 0):
        return scores
    return (torch.log(scores / (1 - scores)) * config.score_scale + config.score_bias).sigmoid()


def calibrate_floor(config: InferenceConfig) -> float:
    """Give the calibrated score of a box that the network scores `score_floor`."""
    return calibrate_scores(torch.tensor(config.score_floor), config).item()


def select_candidates(boxes: Tensor, scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the pairs of a point and a class that score best, so that NMS compares hundreds and not tens of thousands.

    Args:
        boxes: [N, A, 4] xyxy.
        scores: [N, A, D] 0..1.
        limit: pairs at most.

    Returns:
        [N, K, 4] boxes, [N, K] scores and [N, K] labels, best first, K = min(A * D, limit).
    """
    num_classes = scores.shape[2]
    best, pairs = scores.flatten(1).topk(min(scores.shape[1] * num_classes, limit), dim=1)
    return take_points(boxes, pairs // num_classes), best, pairs % num_classes


def select_detections(
    boxes: Tensor, scores: Tensor, labels: Tensor, config: InferenceConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise NMS over the candidates of one picture; the graph that export makes does the same.

    Args:
        boxes: [K, 4] xyxy; in input pixels.
        scores: [K] 0..1, calibrated.
        labels: [K] class indices.
        config: floor, threshold and limit.

    Returns:
        boxes, scores and labels of those that stay, best first, `max_detections` at most.
    """
    above = scores > calibrate_floor(config)
    boxes, scores, labels = boxes[above], scores[above], labels[above]
    keep = batched_nms(boxes, scores, labels, config.iou_threshold)[: config.max_detections]
    return boxes[keep], scores[keep], labels[keep]


class TorchSession:
    """A `service.engine.session.Session` that runs the network in torch, so that evaluation has one path for both."""

    def __init__(self, model: MultiTaskModel, config: Config, device: torch.device) -> None:
        self._predictor = Predictor(model, config).to(device)
        self._config = config.inference
        self._device = device

    @torch.inference_mode()
    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the arrays of the contract's outputs out."""
        was_training = self._predictor.model.training
        self._predictor.eval()
        dense: DenseOutputs = self._predictor(torch.from_numpy(images).to(self._device))
        self._predictor.model.train(was_training)
        outputs = {**self._detect(dense), "mask": dense.mask, "class_probs": dense.class_probs}
        return {name: output.cpu().numpy() for name, output in outputs.items() if output is not None}

    def _detect(self, dense: DenseOutputs) -> dict[str, Tensor]:
        """NMS, and as many places as the contract says, those without a box filled with zeros."""
        if dense.boxes is None or dense.scores is None or dense.labels is None:
            return {}
        count = len(dense.boxes)
        limit = min(self._config.max_detections, dense.scores.shape[1])
        boxes = torch.zeros(count, limit, 4)
        scores = torch.zeros(count, limit)
        labels = torch.zeros(count, limit, dtype=torch.long)
        counts = torch.zeros(count, dtype=torch.long)
        for index in range(count):
            candidates = (dense.boxes[index].cpu(), dense.scores[index].cpu(), dense.labels[index].cpu())
            kept = select_detections(*candidates, self._config)
            found = len(kept[0])
            counts[index] = found
            boxes[index, :found], scores[index, :found], labels[index, :found] = kept
        return {"boxes": boxes, "scores": scores, "labels": labels, "num_detections": counts}


def compute_weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names and bytes of all tensors, in the order of their names: 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_contract(config: Config, taxonomy: Taxonomy, state: Mapping[str, Tensor], *, git_commit: str) -> ModelContract:
    """Say what a trained network is and how to read it; metrics and golden answers are added when it is exported."""
    taxonomy = taxonomy.keep([stage.task for stage in config.stages])
    sha256 = compute_weights_sha256(state)
    strides = build_scheme(config).strides
    # A network of few points and classes has fewer candidates than it might answer with.
    points = sum((config.input_size // stride) ** 2 for stride in strides)
    most = min(points * len(taxonomy.detection), config.inference.max_candidates) or config.inference.max_candidates
    return ModelContract(
        version=f"{config.preset}-{sha256[:12]}",
        preset=config.preset,
        git_commit=git_commit,
        weights_sha256=sha256,
        input_size=config.input_size,
        mask_stride=config.inference.mask_stride,
        detection_strides=strides,
        score_floor=config.inference.score_floor,
        iou_threshold=config.inference.iou_threshold,
        max_detections=min(config.inference.max_detections, most),
        segmentation_classes=taxonomy.segmentation,
        detection_classes=taxonomy.detection,
        classification_classes=taxonomy.classification,
        tasks=tuple(_ASKED[task] for task in taxonomy.tasks),
        score_threshold=config.inference.score_threshold,
        score_scale=config.inference.score_scale,
        score_bias=config.inference.score_bias,
        class_temperature=config.inference.class_temperature,
    )


def restore_model(checkpoint: Checkpoint) -> MultiTaskModel:
    """Build the network that a checkpoint's weights belong to, and load them.

    Raises:
        CheckpointError: its weights are not those of the network that its config describes.
    """
    config = checkpoint.parsed_config()
    shape = config.model.model_copy(update={"backbone_weights": "random"})
    model = build_model(shape, checkpoint.taxonomy.num_classes)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        *_, fault = str(error).splitlines()
        raise CheckpointError(
            f"the checkpoint's weights do not fit the network and classes of this version: {fault.strip()}"
        ) from error
    return model


def build_engine(
    model: MultiTaskModel, config: Config, taxonomy: Taxonomy, device: torch.device, *, git_commit: str
) -> Engine:
    """Build the service's engine around the network in torch."""
    contract = make_contract(config, taxonomy, model.state_dict(), git_commit=git_commit)
    return Engine(TorchSession(model, config, device), contract)


def read_taxonomy(contract: ModelContract) -> Taxonomy:
    """Give the classes that an exported file names; it does not say which of them are the same thing."""
    return Taxonomy(contract.segmentation_classes, contract.detection_classes, contract.classification_classes)


def choose_tasks(engine: Engine, tasks: Collection[Task], sets: DataSets, *, owner: str) -> list[Task]:
    """List the tasks that a model can be measured at, in the order of `Task`.

    Args:
        engine: the model.
        tasks: that it has learned.
        sets: the data, which may have others.
        owner: what the model is called, in sentences.

    Raises:
        DataError: the data has nothing of any of these tasks.
        TaxonomyError: the model was made with other classes.
    """
    both = [task for task in sets.taxonomy.tasks if task in tasks]
    if not both:
        has, knows = (", ".join(some) for some in (sets.taxonomy.tasks, sorted(tasks)))
        raise DataError(f"{owner} has learned {knows}, and the data is about {has}: there is nothing to measure")
    known, advice = read_taxonomy(engine.contract), "name the data that it learned from"
    require_same_classes(known, sets.taxonomy, both, owner=owner, mine="the file", advice=advice)
    return both


def open_checkpoint(path: Path, device: torch.device) -> tuple[Engine, list[Task], int]:
    """Load a checkpoint: engine, tasks learned, pictures per forward pass.

    Raises:
        CheckpointError: there is none.
    """
    loaded = load_checkpoint(path)
    config, model = loaded.parsed_config(), restore_model(loaded).to(device)
    engine = build_engine(model, config, loaded.taxonomy, device, git_commit=loaded.git_commit)
    return engine, list(loaded.learned), config.eval_batch_size


def open_model(path: Path) -> tuple[Engine, list[Task], int]:
    """Load an ONNX file, which takes one picture per forward pass, as most that the service asks of it.

    Raises:
        ContractError: it cannot be read.
    """
    engine = load_engine(path)
    return engine, list(read_taxonomy(engine.contract).tasks), 1
