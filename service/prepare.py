"""From a picture as it came to what the network takes: one way for requests, the shadow model and benchmarks."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from service.contract import ModelContract
from service.imaging import Letterbox, UInt8Array, decode_for, letterbox
from service.picture_limits import DEFAULT_LIMITS, PictureLimits
from service.timing import Stopwatch

# The bytes of a file, or [S, S, 3] RGB that is the network's input already.
Picture: TypeAlias = bytes | UInt8Array


def prepare(
    picture: Picture, contract: ModelContract, watch: Stopwatch | None = None, *, limits: PictureLimits = DEFAULT_LIMITS
) -> tuple[UInt8Array, Letterbox]:
    """Decode and letterbox a picture; laps `decode` and `preprocess`.

    Args:
        picture: as it came.
        contract: of the model that will see it.
        watch: of the picture.
        limits: beyond which a file is refused.

    Returns:
        [S, S, 3] RGB, 0..255, and where the picture lies in it.

    Raises:
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: see `service.imaging.decode_for`.
    """
    watch, size = watch or Stopwatch(), contract.input_size
    if not isinstance(picture, bytes):
        watch.lap("decode")
        watch.lap("preprocess")
        return picture, Letterbox(size, size, size, size)
    pixels, original = decode_for(size, picture, limits)
    watch.lap("decode")
    square, place = letterbox(pixels, size, contract.letterbox.fill, original=original)
    watch.lap("preprocess")
    return square, place


def digest(picture: Picture) -> bytes:
    """Tell pictures apart: 32 bytes; a file and an input never have the same."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).digest()
    return hashlib.sha256(b"input\0" + picture.tobytes()).digest()
