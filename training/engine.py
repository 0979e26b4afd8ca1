"""One epoch of learning one task, while earlier ones hold on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from training.config import StageConfig
from training.data.loaders import Batch, BatchTargets
from training.models.heads import TaskLogits
from training.models.multitask import MultiTaskModel

LossFunction = Callable[[TaskLogits, BatchTargets], dict[str, Tensor]]


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What holds an earlier task in place: a penalty on the shared weights, and how strongly it counts."""

    name: str
    strength: float
    penalty: Callable[[], Tensor]


def build_optimizer(model: MultiTaskModel, config: StageConfig) -> AdamW:
    """Build a fresh AdamW: no moments of an earlier stage, no decay that would move other tasks' prediction rows.

    The backbone learns at a fraction of the rate. Batch-norm, biases and prediction rows never decay: AdamW shrinks
    weights whose gradient is zero, and the rows of tasks that are not being learned must stay as they are.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.startswith("head.predict.")
            groups.setdefault((name.startswith("backbone."), decays), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": config.learning_rate * (config.backbone_lr_factor if in_backbone else 1),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (in_backbone, decays), parameters in groups.items()
        ]
    )


def build_scheduler(optimizer: AdamW, *, steps: int, warmup_fraction: float) -> LambdaLR:
    """Build a linear warm-up, then a cosine to zero, over `steps` optimiser steps."""
    warmup = max(1, round(steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)


def train_one_epoch(
    model: MultiTaskModel,
    batches: Iterable[Batch],
    compute_loss: LossFunction,
    optimizer: AdamW,
    scheduler: LambdaLR,
    *,
    device: torch.device,
    clip_norm: float,
    protections: Iterable[Protection] = (),
    on_batch: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Go through the batches once.

    Args:
        model: changed in place.
        batches: of one task.
        compute_loss: logits and targets to named parts, which are summed.
        optimizer: stepped once a batch.
        scheduler: stepped once a batch.
        device: where the network runs; mixed precision (bfloat16) on CUDA.
        clip_norm: largest norm of the gradient.
        protections: penalties that are added to the loss.
        on_batch: told the number of pictures after each batch.

    Returns:
        The mean over pictures of each part, of each penalty times its strength ("ewc/TASK"), and of their sum ("loss").

    Raises:
        TrainingDivergedError: the loss or its gradient became infinite or no number; the weights are as before it.
    """
    model.train()
    sums: dict[str, float] = {}
    pictures = 0
    for batch in batches:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(batch.images.to(device, non_blocking=True))
        targets = batch.targets.to(device) if isinstance(batch.targets, Tensor) else batch.targets
        parts = compute_loss(logits, targets)
        for protection in protections:
            parts[f"ewc/{protection.name}"] = protection.strength * protection.penalty()
        parts["loss"] = torch.stack([part.reshape(()) for part in parts.values()]).sum()
        if not torch.isfinite(parts["loss"]):
            raise TrainingDivergedError(
                f"the loss became {parts['loss'].item()}: { ({name: part.item() for name, part in parts.items()}) }; "
                "lower learning_rate or ewc_lambda"
            )
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch's, untyped
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        if not torch.isfinite(norm):
            raise TrainingDivergedError(f"the gradient became {norm.item()}; lower learning_rate or ewc_lambda")
        optimizer.step()
        scheduler.step()
        count = len(batch.images)
        pictures += count
        for name, part in parts.items():
            # Weighted by pictures, then divided once: a mean of batch means would over-weight a short last batch.
            sums[name] = sums.get(name, 0.0) + part.item() * count
        on_batch(count)
    return {name: value / pictures for name, value in sums.items()}
