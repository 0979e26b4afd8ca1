"""How important each shared weight is to a task that has been learned: the diagonal of its Fisher information.

The Fisher information is the mean, over pictures, of the expected squared gradient of log p(labels | picture) with the
labels distributed as the network says. Three stand-ins for that expectation (van de Ven, arXiv:2502.11756, sec. 3):

    empirical: the labels that the picture has. They are no draw from the network: what it fits well weighs nothing.
    sampled: one draw from the network; unbiased.
    exact: the expectation itself. Classification only: a mask has too many possible labels, and so have boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import Task
from training.data.batches import Batch, BatchTargets, move_batch
from training.data.taxonomy import VOID
from training.detection.schemes import DetectionScheme, RawDetections, build_scheme
from training.hooks.context import StageContext
from training.hooks.passes import evaluating
from training.objectives import make_final_objective

Kind = Literal["empirical", "sampled", "exact"]


def check_kind(kind: Kind, task: Task) -> None:
    """Refuse what cannot be computed.

    Raises:
        ValueError: exact information of another task than classification.
    """
    if kind == "exact" and task is not Task.CLASSIFICATION:
        raise ValueError(f"exact Fisher information is for classification, not {task}; choose sampled or empirical")


def estimate_fisher(
    model: nn.Module, parameters: dict[str, nn.Parameter], losses: Iterable[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Estimate Fisher information: the mean over samples of the squared gradient of each one's loss.

    One sample at a time, in evaluation mode. The square of a batch's mean gradient, which is often used in its place,
    is too small by about the batch size and noisier (van de Ven, arXiv:2502.11756, sec. 3).

    Args:
        model: put into evaluation mode for the time of the call.
        parameters: what to weigh, by name; the shared ones.
        losses: one function per sample; each returns that sample's loss, a scalar.

    Returns:
        For each parameter a tensor of its shape, >= 0, scaled so that the mean over all of them is 1:
        lambda then means the same whatever the task and its loss.

    Raises:
        ValueError: there is no sample.
    """
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    with evaluating(model):
        for compute_loss in losses:
            # Not .backward(): gradients that somebody else is gathering stay as they are.
            gradients = torch.autograd.grad(compute_loss(), list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.detach() ** 2
            count += 1
    if not count:
        raise ValueError("Fisher information needs at least one sample, got none")
    mean = sum(float(value.sum()) for value in sums.values()) / sum(value.numel() for value in sums.values())
    scale = 1 / mean if mean > 0 else 0.0  # no gradient anywhere: nothing is important
    return {name: value * scale for name, value in sums.items()}


def estimate_importance(context: StageContext, kind: Kind) -> dict[str, Tensor]:
    """Weigh the shared weights that can learn for the task that the stage has learned, over its training pictures.

    Args:
        context: the stage, at its end; the pictures are seen letterboxed, without augmentation.
        kind: see the module.

    Returns:
        As `estimate_fisher`.

    Raises:
        ValueError: as `check_kind`.
    """
    stage, model = context.stage, context.model
    check_kind(kind, stage.task)
    dataset, scheme = context.datasets[stage.task], build_scheme(context.config)
    named_parts = make_final_objective(context.config, stage, dataset)
    rng = np.random.default_rng([context.config.seed, len(context.learned)])

    def answer(images: Tensor) -> Tensor:
        return model.head.answer(model.extract(images), stage.task)

    def objective(logits: Tensor, batch: Batch) -> Tensor:
        return torch.stack(list(named_parts(logits, batch).values())).sum()

    losses = (
        loss
        for index in range(len(dataset))
        for loss in make_sample_losses(
            kind,
            move_batch(dataset.make_batch([index]), context.device),
            answer,
            objective,
            scheme,
            rng,
            num_classes=model.num_classes[stage.task],
        )
    )
    return estimate_fisher(model, model.shared_parameters(), losses)


def make_sample_losses(
    kind: Kind,
    batch: Batch,
    answer: Callable[[Tensor], Tensor],
    objective: Callable[[Tensor, Batch], Tensor],
    scheme: DetectionScheme,
    rng: np.random.Generator,
    *,
    num_classes: int,
) -> list[Callable[[], Tensor]]:
    """Say what to square the gradient of for one picture; the sum of the squares is its Fisher information.

    Losses are sums over a picture's cells or boxes, as log-likelihoods are: what the objective has divided by their
    number is multiplied by it again, or a picture with one box would count for one with twenty.

    Args:
        kind: see the module.
        batch: of one picture.
        answer: pictures to logits of the task.
        objective: logits and batch to the loss of its labels, a scalar.
        scheme: how to read the logits of detection.
        rng: draws the labels of "sampled".
        num_classes: of the task.

    Returns:
        One function, or one a class for "exact", each of which runs the network.
    """

    def compute_empirical() -> Tensor:
        return objective(answer(batch.images), batch) * _count_labels(batch.targets)

    def compute_sampled() -> Tensor:
        logits = answer(batch.images)
        if isinstance(batch.targets, tuple):
            return sampled_detection_loss(scheme.read(logits, input_size=batch.images.shape[1]), rng)
        drawn = batch._replace(targets=draw_labels(logits, batch.targets, rng))
        return objective(logits, drawn) * _count_labels(drawn.targets)

    def compute_exact(label: int) -> Tensor:
        logits = answer(batch.images)
        probability = logits.detach().float().softmax(dim=-1)[0, label]
        drawn = batch._replace(targets=torch.full((1,), label, device=logits.device))
        return probability.sqrt() * objective(logits, drawn)  # the gradient is squared: the root becomes the weight

    if kind == "exact":
        return [partial(compute_exact, label) for label in range(num_classes)]
    return [compute_empirical if kind == "empirical" else compute_sampled]


def draw_labels(logits: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a class for each picture, or for each mask cell that is not void, from the softmax.

    Args:
        logits: [N, P], or [N, G, h, w], which are upsampled to the masks' size as their loss does.
        labels: [N], or masks [N, H, W] with void where nothing is drawn.
        rng: draws.

    Returns:
        Labels of the same shape.
    """
    logits = logits.detach().float()
    if labels.ndim > 1:
        logits = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
    return torch.where(labels == VOID, labels, _draw_classes(logits, rng))


def sampled_detection_loss(found: RawDetections, rng: np.random.Generator) -> Tensor:
    """Minus the log-likelihood of detections that are drawn from the network itself, summed over all points.

    Whether there is an object is drawn for each logit (Bernoulli); where there is one, its class from the softmax, if
    the scheme has one, and its box from a Gaussian of standard deviation 1 around what the scheme regresses, in strides
    (smooth L1 is, near 0, minus its log-likelihood). The gradient flows through the logits, not through the draws.
    """
    drawn = _uniform(rng, found.objectness) < found.objectness.detach().sigmoid()
    loss = F.binary_cross_entropy_with_logits(found.objectness, drawn.to(found.objectness.dtype), reduction="sum")
    there = drawn.any(dim=-1)
    boxes = found.boxes[there]
    noise = torch.from_numpy(rng.standard_normal(boxes.shape, dtype=np.float32)).to(boxes.device)
    loss = loss + 0.5 * (boxes - (boxes.detach() + noise)).square().sum()
    if found.classes is None:
        return loss
    classes = found.classes[there]
    return loss + F.cross_entropy(classes, _draw_classes(classes.detach(), rng), reduction="sum")


def _draw_classes(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn logits [N, C, ...] into class ids [N, ...] by inverting the cumulative distribution."""
    cumulative = logits.softmax(dim=1).cumsum(dim=1)
    drawn = (cumulative < _uniform(rng, logits[:, :1])).sum(dim=1)
    return drawn.clamp(max=logits.shape[1] - 1)  # the last sum may be rounded to less than 1


def _uniform(rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.random(like.shape, dtype=np.float32)).to(like.device)


def _count_labels(targets: BatchTargets) -> int:
    """Say what the loss of one picture has been divided by; for detection its boxes stand for their points."""
    if isinstance(targets, tuple):
        return max(1, sum(len(target.boxes) for target in targets))
    return int((targets != VOID).sum())
