"""Boxes with their names and masks with their colours, drawn over a picture that a page can hold."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.pictures.imaging import UInt8Array, fit
from service.pictures.resizing import resize
from training.data.doctor.findings import PictureBox
from training.data.taxonomy import VOID

Colour: TypeAlias = tuple[int, int, int]  # RGB, 0..255
Rectangle: TypeAlias = tuple[float, float, float, float]  # xyxy, pixels of the drawing

VOID_COLOUR: Final[Colour] = (255, 255, 255)
VOID_OPACITY: Final = 0.9
MASK_OPACITY: Final = 0.6
UNKNOWN_COLOUR: Final[Colour] = (128, 128, 128)

_JPEG_QUALITY = 80
_MAX_TAGS = 14  # more hide the picture; the largest boxes have them
_LINE_PX, _DASH_PX, _FONT_PX, _TAG_PAD_PX = 3, 9, 17, 4
_RIM: Colour = (16, 16, 16)
_FAR_PX = 5000
# Saturation and value: hues come round again after 8 and 13 steps, and differ in these then.
_SHADES = ((0.75, 1.0), (0.95, 0.8), (0.45, 1.0))


def make_colours(names: Sequence[str]) -> Mapping[str, Colour]:
    """One colour for each name; neighbours are far apart on the colour wheel."""
    return {name: _colour_of_index(index) for index, name in enumerate(names)}


def shrink(image: UInt8Array, frame: tuple[int, int]) -> UInt8Array:
    """Scale a picture [H, W, 3] RGB, up or down, to fit a frame of (width, height) pixels."""
    height, width = image.shape[:2]
    scale = min(frame[0] / width, frame[1] / height)
    place = fit(width, height, max(1, round(max(width, height) * scale)))
    return resize(image, place.resized_width, place.resized_height)


def tint(image: UInt8Array, class_ids: UInt8Array, names: Sequence[str], colours: Mapping[str, Colour]) -> UInt8Array:
    """Lay class colours over a picture [H, W, 3] by its class ids; background stays clear, void turns white.

    Class ids [h, w] of another size are stretched over it.
    """
    size = (image.shape[1], image.shape[0])
    class_ids = np.asarray(Image.fromarray(class_ids).resize(size, Image.Resampling.NEAREST))
    palette = np.array(
        [colours.get(class_name(value, names), UNKNOWN_COLOUR) for value in range(256)], dtype=np.float32
    )
    opacity = np.full(256, MASK_OPACITY, dtype=np.float32)
    palette[VOID], opacity[VOID], opacity[0] = VOID_COLOUR, VOID_OPACITY, 0.0
    return (image + (palette[class_ids] - image) * opacity[class_ids][..., None]).round().astype(np.uint8)


def encode_data_uri(image: UInt8Array) -> str:
    """A picture [H, W, 3] RGB as the address of a JPEG that a page holds itself."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def colour_key(colour: Colour) -> str:
    """A small square of a colour, as markup, to stand before a name."""
    red, green, blue = colour
    return f'<span class="key" style="background:#{red:02x}{green:02x}{blue:02x}"></span>'


def class_name(class_id: int, names: Sequence[str]) -> str:
    """Name of a mask value: a class, "void", or the number where it is neither."""
    if class_id == VOID:
        return "void"
    return names[class_id] if class_id < len(names) else f"value {class_id}"


def draw_boxes(
    image: UInt8Array, boxes: Sequence[PictureBox], colours: Mapping[str, Colour], original: UInt8Array | None = None
) -> UInt8Array:
    """Draw boxes with their names: crowds dashed, small boxes on top of large ones.

    The boxes are in pixels of `original`, the same picture at another size; without it, in pixels of `image`. The
    smallest go without name, and so does a box whose name would cover another; a box with its sides the wrong way round
    is drawn all the same.
    """
    height, width = (image if original is None else original).shape[:2]
    across, down = image.shape[1] / width, image.shape[0] / height
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    largest_first = sorted((_ordered(box, across, down) for box in boxes), key=_area, reverse=True)
    for name, box, is_crowd in largest_first:
        _draw_outline(draw, box, colours.get(name, UNKNOWN_COLOUR), is_crowd)
    taken: list[Rectangle] = []
    for name, box, is_crowd in largest_first[:_MAX_TAGS]:
        _draw_tag(draw, box, f"{name} (crowd)" if is_crowd else name, colours.get(name, UNKNOWN_COLOUR), taken)
    return np.asarray(canvas)


def _ordered(box: PictureBox, across: float, down: float) -> PictureBox:
    name, (x1, y1, x2, y2), is_crowd = box
    # Pillow wants corners in order, and its integers overflow on coordinates far off.
    xs, ys = (
        np.clip(np.nan_to_num(sorted(pair)), -_FAR_PX, _FAR_PX)
        for pair in ((x1 * across, x2 * across), (y1 * down, y2 * down))
    )
    return name, (float(xs[0]), float(ys[0]), float(xs[1]), float(ys[1])), is_crowd


def _area(box: PictureBox) -> float:
    x1, y1, x2, y2 = box[1]
    return (x2 - x1) * (y2 - y1)


def _draw_outline(draw: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, is_crowd: bool) -> None:
    x1, y1 = round(box[0]), round(box[1])
    x2, y2 = max(x1, round(box[2]) - 1), max(y1, round(box[3]) - 1)  # Pillow draws the last pixel too
    if not is_crowd:
        # A dark rim keeps the line visible on a picture of its own colour.
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_RIM, width=1)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=_LINE_PX)
        return
    draw.rectangle((x1, y1, x2, y2), outline=_RIM, width=_LINE_PX)
    for start in range(x1, x2, 2 * _DASH_PX):
        end = min(start + _DASH_PX, x2)
        draw.rectangle((start, y1, end, min(y1 + _LINE_PX - 1, y2)), fill=colour)
        draw.rectangle((start, max(y2 - _LINE_PX + 1, y1), end, y2), fill=colour)
    for start in range(y1, y2, 2 * _DASH_PX):
        end = min(start + _DASH_PX, y2)
        draw.rectangle((x1, start, min(x1 + _LINE_PX - 1, x2), end), fill=colour)
        draw.rectangle((max(x2 - _LINE_PX + 1, x1), start, x2, end), fill=colour)


def _draw_tag(draw: ImageDraw.ImageDraw, box: Rectangle, text: str, colour: Colour, taken: list[Rectangle]) -> None:
    font = ImageFont.load_default(size=_FONT_PX)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * _TAG_PAD_PX, bottom - top + 2 * _TAG_PAD_PX
    canvas_width, canvas_height = draw.im.size
    x1, y1, x2, y2 = box
    # Above the box, inside it, below it; at its left, then at its right; never outside the picture.
    for x, y in [(x, y) for y in (y1 - height, y1, y2, y2 - height) for x in (x1, x2 - width)]:
        tag_x, tag_y = max(0.0, min(x, canvas_width - width)), max(0.0, min(y, canvas_height - height))
        tag = (tag_x, tag_y, tag_x + width, tag_y + height)
        if not any(_overlap(tag, other) for other in taken):
            taken.append(tag)
            draw.rectangle(tag, fill=colour)
            draw.text(
                (tag_x + _TAG_PAD_PX - left, tag_y + _TAG_PAD_PX - top), text, font=font, fill=_readable_on(colour)
            )
            return


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more (luma of ITU-R BT.601)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 120 else (255, 255, 255)  # noqa: PLR2004 - near half of 255


def _colour_of_index(index: int) -> Colour:
    saturation, value = _SHADES[index % len(_SHADES)]
    # Steps of the golden ratio keep neighbouring indices apart.
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.618034) % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
