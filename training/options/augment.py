"""How much a training picture may be changed before the network sees it; the defaults only mirror it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from training.options.base import Frozen

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Frozen):
    """The augmentations of one stage (`training.data.augment`)."""

    flip: bool = Field(True, description="mirror every other picture")
    scale: tuple[float, float] = Field(
        (1.0, 1.0),
        description="large-scale jitter: the picture's size, log-uniform, 1 being its size when letterboxed; "
        "(1, 1) without stretch is the letterbox of serving, anything else also moves the picture",
    )
    stretch: float = Field(0.0, ge=0, le=1, description="width to height changes by up to 1 + stretch, either way")
    colour: float = Field(0.0, ge=0, le=1, description="brightness, contrast and saturation change by up to this share")
    min_visible: float = Field(0.3, ge=0, le=1, description="boxes with a smaller share of their area left are dropped")
    min_side_px: float = Field(3.0, ge=0, description="boxes with a shorter side left are dropped; in input pixels")
    focus: Probability = Field(0.0, description="share of pictures cropped around an object, rare classes preferred")
    mosaic: Probability = Field(0.0, description="share of squares made of four pictures; detection only")
    copy_paste: Probability = Field(0.0, description="share that gets another picture's objects; segmentation only")
    rand_augment: int = Field(0, ge=0, description="operations of RandAugment a picture; classification only")
    rand_augment_magnitude: float = Field(0.3, ge=0, le=1, description="strength of RandAugment's operations")
    sizes: tuple[Annotated[int, Field(gt=0, multiple_of=32)], ...] = Field(
        (), description="a batch's input size is one of these, drawn at random; none: always the run's input_size"
    )

    @property
    def is_letterbox(self) -> bool:
        """Whether pictures lie in the square as serving lays them."""
        return self.scale == (1.0, 1.0) and self.stretch == 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high; got ({low}, {high})")
        if self.focus > 0 and high <= 1:
            raise ValueError(f"focus {self.focus} crops nothing unless scale goes beyond 1; got ({low}, {high})")
        return self
