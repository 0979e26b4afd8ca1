"""From a picture as it came to what the network takes: one way for requests, the shadow model and benchmarks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from service.engine.contract import ModelContract
from service.pictures.header import check_picture
from service.pictures.imaging import Letterbox, UInt8Array, decode_for, letterbox
from service.pictures.limits import DEFAULT_LIMITS, PictureHeader, PictureLimits, estimate_bytes
from service.telemetry.timing import Stopwatch

# The bytes of a file, or [S, S, 3] RGB that is the network's input already.
Picture: TypeAlias = bytes | UInt8Array
# Of a file that is put in order before it is decoded.
_FILE_COPIES = 2


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


def count_bytes(picture: Picture) -> int:
    """Bytes of a picture as it came."""
    return len(picture) if isinstance(picture, bytes) else picture.nbytes


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a picture before it is decoded.

    Attributes:
        digest: 32 bytes, never the same for a file and an input; none for a picture that is shared with nobody.
        width, height: of the picture as it is stored; in pixels.
        header: of a file; None for an input.
        file_bytes: of a file; 0 for an input.
    """

    digest: bytes
    width: int
    height: int
    header: PictureHeader | None
    file_bytes: int = 0

    def estimate_bytes(self, size: int | None) -> int:
        """Bytes of memory that decoding takes at most; see `service.pictures.limits.estimate_bytes`."""
        return 0 if self.header is None else estimate_bytes(self.header, size) + _FILE_COPIES * self.file_bytes


def identify(picture: Picture, limits: PictureLimits, *, fresh: bool) -> Look:
    """Refuse a file that is too much before it waits for anything, and tell pictures apart.

    Args:
        picture: as it came.
        limits: beyond which a file is refused.
        fresh: it is shared with nobody.

    Raises:
        EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly: see `check_picture`.
    """
    if isinstance(picture, bytes):
        header = check_picture(picture, limits)
        digest = b"" if fresh else hashlib.sha256(picture).digest()
        return Look(digest, header.width, header.height, header, len(picture))
    digest = b"" if fresh else hashlib.sha256(b"input\0" + picture.tobytes()).digest()
    return Look(digest, picture.shape[1], picture.shape[0], None)
