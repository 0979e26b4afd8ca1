"""What an answer costs in memory, foretold from the picture's size: while it is made, and until it is written."""

from __future__ import annotations

from dataclasses import dataclass

from service.answers.finish import Look, Wanted
from service.answers.masks import MaskFormat
from service.answers.render import PictureFormat
from service.engine.contract import ModelContract
from service.pictures.imaging import fit
from service.pictures.limits import PictureHeader, estimate_bytes

# All factors are measured with masks of noise, the worst there are (tests/service/answers/test_cost.py).
_FIXED_BYTES = 2**20
# Boxes, classes, segments.
_WORDS_BYTES = 2**15
# Bytes a pixel that is drawn, in all copies; and of the file.
_DRAWING = 22
_FILES: dict[PictureFormat, float] = {"jpeg": 1.5, "png": 3, "webp": 0.75}


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """Bytes of memory of one answer about one picture.

    Attributes:
        making: while it is made, itself included.
        kept: from then on, until it is written to its client.
    """

    making: int
    kept: int


NOTHING = AnswerCost(0, 0)


def estimate_json(header: PictureHeader, wanted: Wanted, contract: ModelContract) -> AnswerCost:
    """Foretell `finish_json`.

    Raises:
        TaskNotServed: as there.
    """
    if "segment" not in wanted.find_tasks(contract) or wanted.mask == "none":
        return NOTHING
    return _estimate_mask(header, wanted.mask, contract)


def estimate_png(header: PictureHeader, contract: ModelContract) -> AnswerCost:
    """Foretell `finish_png`."""
    return _estimate_mask(header, "png", contract)


def _estimate_mask(header: PictureHeader, form: MaskFormat, contract: ModelContract) -> AnswerCost:
    pixels, cells = header.width * header.height, contract.input_size // contract.mask_stride
    # Where the mask may change in each row or column, whichever are longer.
    changes = max(header.width, header.height) * min(header.width, header.height, cells)
    making, kept = {
        "png": (1.5 * pixels, 2 * changes + pixels / 50),
        "rle": (4 * pixels + 120 * changes, 4 * changes),
        "polygons": (400 * cells**2, 45 * cells**2),
        "raw": (6.5 * pixels, pixels * 4 / 3),
    }[form]
    return AnswerCost(_FIXED_BYTES + int(making), _WORDS_BYTES + int(kept))


def estimate_overlay(header: PictureHeader, look: Look) -> AnswerCost:
    """Foretell `finish_overlay`, which decodes the picture once more."""
    width, height = header.width, header.height
    if max(width, height) > look.max_side:
        drawn = fit(width, height, look.max_side)
        width, height = drawn.resized_width, drawn.resized_height
    making = max(estimate_bytes(header, look.max_side), _FIXED_BYTES + _DRAWING * width * height)
    return AnswerCost(making, int(width * height * _FILES[look.format]))
