"""RGB pictures of any size to any other: by fast_image_resize, and by Pillow on machines that it has no wheel for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import cykooz_resizer as fast
except ImportError:  # pyproject.toml does not ask for it where it has no wheel, as on 64-bit Arm with Linux
    fast = None

Resize: TypeAlias = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]


def resize_fast(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`resize` by fast_image_resize, which gives the same bits with and without SIMD; where it is installed."""
    source = fast.ImageData(image.shape[1], image.shape[0], fast.PixelType.U8x3, image.tobytes())
    target = fast.ImageData(width, height, fast.PixelType.U8x3)
    bilinear = fast.ResizeOptions(fast.ResizeAlg.convolution(fast.FilterType.bilinear))
    # A Resizer may not be shared between threads, and costs microseconds to make.
    fast.Resizer().resize(source, target, bilinear)
    return np.frombuffer(target.get_buffer(), dtype=np.uint8).reshape(height, width, 3)


def resize_by_pillow(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`resize` by Pillow, which is everywhere."""
    # Of what lies in one piece it makes one copy, else two.
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


# By the names of their packages; the first is the one that is used.
RESIZERS: Final[dict[str, Resize]] = {
    **({} if fast is None else {"cykooz.resizer": resize_fast}),
    "pillow": resize_by_pillow,
}
RESIZER: Final = next(iter(RESIZERS))


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize [H, W, 3] RGB to [height, width, 3]: bilinear, the filter widened when shrinking so that nothing aliases.

    fast_image_resize, because it is 2 to 4 times as fast as Pillow (docs/experiments.md), and Pillow where that has no
    wheel. The two differ by at most 2 levels; how much a model makes of that stands in its contract.
    """
    return RESIZERS[RESIZER](image, width, height)
