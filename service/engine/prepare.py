"""From a picture as it came to what the network takes: one way for requests, the shadow model and benchmarks."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from service.engine.contract import ModelContract
from service.pictures.header import check_picture
from service.pictures.imaging import Letterbox, UInt8Array, decode_for, letterbox
from service.pictures.limits import DEFAULT_LIMITS, PictureLimits
from service.telemetry.timing import Stopwatch

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
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: see `decode_for`.
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


def identify(picture: Picture, limits: PictureLimits, *, fresh: bool) -> bytes:
    """Refuse a file that is too much before it waits for anything, and tell pictures apart.

    Args:
        picture: as it came.
        limits: beyond which a file is refused.
        fresh: it is shared with nobody.

    Returns:
        32 bytes, never the same for a file and an input; none for a picture that is shared with nobody.

    Raises:
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: see `check_picture`.
    """
    if isinstance(picture, bytes):
        check_picture(picture, limits)
    if fresh:
        return b""
    return hashlib.sha256(picture if isinstance(picture, bytes) else b"input\0" + picture.tobytes()).digest()
