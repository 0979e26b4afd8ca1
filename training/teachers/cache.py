"""What a teacher says about each training picture, asked once, and carried to wherever augmentation put the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Task
from training.data.feed.dataset import TaskDataset
from training.data.geometry import place_map
from training.data.placement import Placement
from training.data.taxonomy import Taxonomy
from training.teachers.storage import Float16Array, compute_key, load_or_compute
from training.teachers.teacher import Teacher, TeacherError

# To be raised when answers come to mean something else, so that no file of an earlier version is read.
_VERSION = "answers 3"
_BATCH_SIZE = 8


class TeacherCache:
    """A teacher's logits for every picture of one dataset, in half precision."""

    def __init__(self, answers: Sequence[Float16Array]) -> None:
        """Hold the answers: for each picture [P] of classes, or [h, w, G] that covers it and nothing else."""
        self._answers = answers

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def nbytes(self) -> int:
        """What the answers take, of memory or disk; in bytes."""
        return sum(answer.nbytes for answer in self._answers)

    def gather_classes(self, rows: Sequence[int]) -> Tensor:
        """[N, P] logits of these pictures."""
        return torch.from_numpy(np.stack([self._answers[row] for row in rows])).float()

    def place_maps(self, rows: Sequence[int], placements: Sequence[Placement], stride: int) -> tuple[Tensor, Tensor]:
        """Lay the maps of these pictures where the pictures lie, mirrored with them.

        Args:
            rows: of the pictures.
            placements: where each lies; all on canvases of one size.
            stride: canvas pixels per cell; any that divides the canvas, whatever the teacher's was.

        Returns:
            [N, G, S / stride, S / stride] logits, and whether each cell [N, S / stride, S / stride] shows the picture.
        """
        placed = [
            place_map(self._answers[row], placement, stride) for row, placement in zip(rows, placements, strict=True)
        ]
        maps = torch.from_numpy(np.stack([values for values, _ in placed]))
        return maps.permute(0, 3, 1, 2).float(), torch.from_numpy(np.stack([valid for _, valid in placed]))


def cache_answers(
    teacher: Teacher, dataset: TaskDataset, taxonomy: Taxonomy, *, folder: Path | None = None
) -> TeacherCache:
    """Ask a teacher about every picture of a dataset, whole and as it is.

    A `TaskDataset` is what a stage learns from, so no validation picture ever comes before a teacher's eyes.

    Args:
        teacher: of segmentation or classification.
        dataset: of any task; its labels are not used.
        taxonomy: the classes that the answers are about.
        folder: keeps the answers on disk, under the teacher and the pictures that they belong to; they are mapped, so
            that they need no memory. None: they are kept in memory.

    Raises:
        TeacherError: the teacher is of detection, or its answers are of a wrong shape or not finite.
    """
    if teacher.task is Task.DETECTION:
        raise TeacherError(
            "detection cannot be taught by cached logits: they depend on a picture's scale, which augmentation changes"
        )
    names = taxonomy.names(teacher.task)
    words = (_VERSION, teacher.sha256, teacher.task, repr(teacher.frame), *names)
    key = "" if folder is None else compute_key(dataset, *words)

    def compute(start: int, end: int) -> list[Float16Array]:
        firsts = range(start, end, _BATCH_SIZE)
        batches = (range(first, min(first + _BATCH_SIZE, end)) for first in firsts)
        return [answer for rows in batches for answer in _ask(teacher, dataset, rows, len(names))]

    return TeacherCache(load_or_compute(folder, key, len(dataset), compute))


def crop_to_picture(maps: Tensor, placement: Placement) -> Tensor:
    """Cut the picture out of a map of the input that it lies on, exactly, though it may end inside a cell.

    Args:
        maps: [G, h, w] over the input.
        placement: where the picture lies; all of it has to be seen.

    Returns:
        [G, rows, columns] over the picture alone, cells about as large as before and all equal.
    """
    rows, columns = (
        # From -1 to 1 over the input, as `grid_sample` wants it: the middle of each new cell.
        ((torch.arange(count, device=maps.device) + 0.5) / count * span.resized + span.offset) * (2 / span.canvas) - 1
        for span, cells in ((placement.y, maps.shape[1]), (placement.x, maps.shape[2]))
        for count in [max(1, round(cells * span.resized / span.canvas))]
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    return F.grid_sample(maps[None].float(), grid[None], padding_mode="border", align_corners=False)[0]


def _ask(teacher: Teacher, dataset: TaskDataset, rows: Sequence[int], classes: int) -> list[Float16Array]:
    """The answers for one batch of pictures."""
    shown = [teacher.frame.show(image) for image, _ in dataset.load_all(rows)]
    logits = teacher.answer(torch.from_numpy(np.stack([canvas for canvas, _ in shown])))
    dimensions = 4 if teacher.task is Task.SEGMENTATION else 2
    if logits.ndim != dimensions or logits.shape[1] != classes:
        raise TeacherError(f"a teacher of {teacher.task} gave {tuple(logits.shape)}; wanted {classes} classes")
    if teacher.task is Task.SEGMENTATION:
        parts = [
            crop_to_picture(one, placement).permute(1, 2, 0) for one, (_, placement) in zip(logits, shown, strict=True)
        ]
    else:
        parts = list(logits)
    answers = [np.ascontiguousarray(part.half().cpu().numpy()) for part in parts]
    if not all(np.isfinite(answer).all() for answer in answers):
        raise TeacherError(f"a teacher of {teacher.task} gave logits that are not finite in half precision")
    return answers
