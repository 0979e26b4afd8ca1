"""From ImageNet's thousand classes to Imagenette's ten."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from training.config import Task
from training.data.taxonomy import NUM_CLASSES
from training.teachers.teacher import TeacherError

# Rows of ILSVRC 2012 that Imagenette's classes are, in the order of `training.data.taxonomy.IMAGENETTE_CLASSES`:
# where torchvision's `MobileNet_V3_Small_Weights.IMAGENET1K_V1.meta["categories"]` has their names.
IMAGENETTE_COLUMNS: Final = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
IMAGENET_CLASSES: Final = 1000
# What a classifier is shown that leaves the size open; torchvision's weights were trained at it too.
IMAGENET_SIZE: Final = 224


def keep_imagenette(logits: Tensor) -> Tensor:
    """Cut [N, 1000] logits to the ten classes, [N, 10]; those of ten classes stay as they are.

    Raises:
        TeacherError: another shape.
    """
    shape = tuple(logits.shape)
    if shape[1:] == (IMAGENET_CLASSES,):
        return logits[:, list(IMAGENETTE_COLUMNS)]
    if shape[1:] == (NUM_CLASSES[Task.CLASSIFICATION],):
        return logits
    raise TeacherError(f"a classification teacher gave {shape}; wanted logits of 10 or of ImageNet's 1000 classes")
