"""From ImageNet's thousand classes to those that are to be taught, by name."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from training.config import Task
from training.data.taxonomy import Taxonomy, TaxonomyError, load_imagenet_names
from training.teachers.teacher import TeacherError

IMAGENET_CLASSES: Final = load_imagenet_names()
# What a classifier is shown that leaves the size open; torchvision's weights were trained at it too.
IMAGENET_SIZE: Final = 224


def find_columns(taxonomy: Taxonomy, names: tuple[str, ...] = IMAGENET_CLASSES) -> list[int]:
    """Find the classes that are to be taught among those that a classifier knows.

    Raises:
        TeacherError: it does not know one of them.
    """
    try:
        return list(taxonomy.match(Task.CLASSIFICATION, names))
    except TaxonomyError as error:
        raise TeacherError(f"a classification teacher does not know the classes of the data: {error}") from error


def keep_classes(logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Cut [N, 1000] logits to the classes that are to be taught, [N, P]; those of P classes stay as they are.

    Raises:
        TeacherError: another shape, or ImageNet has no such classes.
    """
    shape, wanted = tuple(logits.shape), len(taxonomy.classification)
    if shape[1:] == (wanted,):
        return logits
    if shape[1:] == (len(IMAGENET_CLASSES),):
        return logits[:, find_columns(taxonomy)]
    raise TeacherError(
        f"a classification teacher gave {shape}; wanted logits of {wanted} or of ImageNet's 1000 classes"
    )
