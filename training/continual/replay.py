"""Replay: a few remembered pictures of the earlier tasks in every step."""

from __future__ import annotations

import torch
from torch import Tensor

from training.continual.distillation import output_distillation
from training.continual.memory import Memory
from training.detection.schemes import build_scheme
from training.hooks.context import StageContext
from training.hooks.hook import Hook, Step
from training.hooks.passes import make_frozen_copy, mixed_precision


class Replay(Hook):
    """Remembered pictures with their labels, and with what the network said of them before the stage.

    DER++ (Buzzega et al., arXiv:2004.07211), but outputs are compared as in distillation, at temperature 1.
    """

    name = "replay"

    def __init__(self, context: StageContext) -> None:
        """Choose the pictures and store the outputs of the network as it was."""
        self._config = context.stage.replay
        self._memory = Memory(context, pictures=self._config.pictures, batch=self._config.batch)
        self._scheme = build_scheme(context.config)
        self._device = context.device
        self._outputs: dict[str, Tensor] = {}
        if self._config.outputs:
            before = make_frozen_copy(context.model, context.before)
            for task, batch in self._memory.batches.items():
                with torch.no_grad(), mixed_precision(context.device):
                    features = before.extract(batch.images.to(context.device))
                    self._outputs[task] = before.head.answer(features, task).cpu()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Name "replay/labels" and "replay/outputs", each the mean over the pictures drawn."""
        labels, outputs = [], []
        for remembered in self._memory.draw(step.progress):
            logits = self._memory.answer(remembered)
            if self._config.labels:
                labels.append(remembered.share * self._memory.label_loss(remembered, logits))
            if self._config.outputs:
                difference = output_distillation(
                    remembered.task,
                    logits,
                    self._outputs[remembered.task][remembered.rows].to(self._device),
                    self._scheme,
                    temperature=1.0,
                    input_size=remembered.batch.images.shape[1],
                )
                outputs.append(remembered.share * difference)
        parts = {}
        if labels:
            parts["replay/labels"] = self._config.labels * torch.stack(labels).sum()
        if outputs:
            parts["replay/outputs"] = self._config.outputs * torch.stack(outputs).sum()
        return parts
