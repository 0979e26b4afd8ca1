"""From pictures to answers in torch, through the same seam as the service's ONNX file: `engine.Session`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms

from service.engine.contract import OUTPUT_NAMES, ModelContract
from service.engine.engine import Engine, load_engine
from service.errors import ContractError
from service.pictures.imaging import UInt8Array
from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from training.config import Config, InferenceConfig, Task
from training.data.classes import CLASSES, NUM_CLASSES
from training.detection.schemes import build_scheme, take_points
from training.models.multitask import MultiTaskModel, build_model


class DenseOutputs(NamedTuple):
    """Answers before NMS; a candidate is a point's box for one class.

    Attributes:
        boxes: [N, K, 4] xyxy, clipped to the input; in input pixels; K is at most `max_candidates`.
        scores: [N, K] 0..1, highest first.
        labels: [N, K] class indices.
        mask: [N, S / mask_stride, S / mask_stride] uint8 class ids.
        class_probs: [N, P] sums to 1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask: Tensor
    class_probs: Tensor


class Predictor(nn.Module):
    """The network and everything after it that works cell by cell; export traces this module."""

    def __init__(self, model: MultiTaskModel, config: Config) -> None:
        super().__init__()
        self.model = model
        self._scheme = build_scheme(config)
        self._input_size = config.input_size
        self._mask_size = config.input_size // config.inference.mask_stride
        self._max_candidates = config.inference.max_candidates

    def forward(self, images: Tensor) -> DenseOutputs:
        """[N, S, S, 3] uint8 RGB, letterboxed, to dense answers."""
        logits = self.model(images)
        upsampled = F.interpolate(
            logits.segmentation, size=(self._mask_size, self._mask_size), mode="bilinear", align_corners=False
        )
        # The K best pairs of a point and a class lie at the K best points.
        boxes, scores = self._scheme.decode(logits.detection, input_size=self._input_size, limit=self._max_candidates)
        boxes, scores, labels = select_candidates(boxes, scores, self._max_candidates)
        return DenseOutputs(
            boxes=boxes,
            scores=scores,
            labels=labels,
            mask=upsampled.argmax(dim=1).to(torch.uint8),
            class_probs=logits.classification.softmax(dim=-1),
        )


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
        scores: [K] 0..1.
        labels: [K] class indices.
        config: floor, threshold and limit.

    Returns:
        boxes, scores and labels of those that stay, best first, `max_detections` at most.
    """
    above = scores > config.score_floor
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
        dense = self._predictor(torch.from_numpy(images).to(self._device))
        self._predictor.model.train(was_training)
        limit = self._config.max_detections
        boxes = torch.zeros(len(images), limit, 4)
        scores = torch.zeros(len(images), limit)
        labels = torch.zeros(len(images), limit, dtype=torch.long)
        counts = torch.zeros(len(images), dtype=torch.long)
        for index in range(len(images)):
            candidates = (dense.boxes[index].cpu(), dense.scores[index].cpu(), dense.labels[index].cpu())
            kept = select_detections(*candidates, self._config)
            count = len(kept[0])
            counts[index] = count
            boxes[index, :count], scores[index, :count], labels[index, :count] = kept
        outputs = (boxes, scores, labels, counts, dense.mask, dense.class_probs)
        return {name: output.cpu().numpy() for name, output in zip(OUTPUT_NAMES, outputs, strict=True)}


def compute_weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names and bytes of all tensors, in the order of their names: 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_contract(config: Config, state: Mapping[str, Tensor], *, git_commit: str) -> ModelContract:
    """Say what a trained network is and how to read it; metrics and golden answers are added when it is exported."""
    sha256 = compute_weights_sha256(state)
    return ModelContract(
        version=f"{config.preset}-{sha256[:12]}",
        preset=config.preset,
        git_commit=git_commit,
        weights_sha256=sha256,
        input_size=config.input_size,
        mask_stride=config.inference.mask_stride,
        detection_strides=build_scheme(config).strides,
        score_floor=config.inference.score_floor,
        iou_threshold=config.inference.iou_threshold,
        max_detections=config.inference.max_detections,
        segmentation_classes=CLASSES[Task.SEGMENTATION],
        detection_classes=CLASSES[Task.DETECTION],
        classification_classes=CLASSES[Task.CLASSIFICATION],
    )


def restore_model(checkpoint: Checkpoint) -> MultiTaskModel:
    """Build the network that a checkpoint's weights belong to, and load them.

    Raises:
        CheckpointError: its weights are not those of the network that its config describes.
    """
    config = checkpoint.parsed_config()
    model = build_model(config.model.model_copy(update={"backbone_weights": "random"}), NUM_CLASSES)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        *_, fault = str(error).splitlines()
        raise CheckpointError(
            f"the checkpoint's weights do not fit the network and classes of this version: {fault.strip()}"
        ) from error
    return model


def build_engine(model: MultiTaskModel, config: Config, device: torch.device, *, git_commit: str) -> Engine:
    """Build the service's engine around the network in torch."""
    contract = make_contract(config, model.state_dict(), git_commit=git_commit)
    return Engine(TorchSession(model, config, device), contract)


def open_checkpoint(path: Path, device: torch.device) -> tuple[Engine, list[Task], int]:
    """Load a checkpoint: engine, tasks learned, pictures per forward pass.

    Raises:
        CheckpointError: there is none.
    """
    loaded = load_checkpoint(path)
    config = loaded.parsed_config()
    engine = build_engine(restore_model(loaded).to(device), config, device, git_commit=loaded.git_commit)
    return engine, [stage.task for stage in config.stages[: loaded.stage]], config.eval_batch_size


def open_model(path: Path) -> tuple[Engine, list[Task], int]:
    """Load an ONNX file, which takes one picture per forward pass, as most that the service asks of it.

    Raises:
        ContractError: it cannot be read, or names other classes than the data has.
    """
    engine = load_engine(path)
    for task in Task:
        if getattr(engine.contract, f"{task}_classes") != CLASSES[task]:
            raise ContractError(f"{path}: its {task} classes are not those of the data; export it again")
    return engine, list(Task), 1
