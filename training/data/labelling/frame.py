"""How a network wants to be shown a picture: stretched, or with its shape kept and the rest filled."""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array
from training.data.geometry import place_image
from training.data.placement import Placement, Span


@dataclass(frozen=True, slots=True)
class Frame:
    """The input of a network.

    Attributes:
        height, width: in pixels.
        letterboxed: the picture keeps its shape, and the rest is filled; else it is stretched to all of the input.
        centred: a letterboxed picture lies in the middle; else in the top left corner, as in serving.
        fill: RGB, 0..255; as in serving if not given.
    """

    height: int
    width: int
    letterboxed: bool
    centred: bool = False
    fill: tuple[int, int, int] = LetterboxRule().fill

    def place(self, height: int, width: int) -> Placement:
        """Where a picture of this size lies."""
        if not self.letterboxed:
            return Placement(Span(width, self.width, 0, self.width), Span(height, self.height, 0, self.height))
        scale = min(self.width / width, self.height / height)
        resized_width, resized_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (self.width - resized_width) // 2, (self.height - resized_height) // 2
        return Placement(
            Span(width, resized_width, left if self.centred else 0, self.width),
            Span(height, resized_height, top if self.centred else 0, self.height),
        )

    def show(self, image: UInt8Array) -> tuple[UInt8Array, Placement]:
        """Lay a picture [H, W, 3] RGB on the input: [height, width, 3] RGB, and where it lies there."""
        placement = self.place(image.shape[0], image.shape[1])
        return place_image(image, placement, self.fill), placement
