"""Time the service's resizer against Pillow's, in interleaved pairs; prints medians, their ratio and the difference.

Run from the repository's root: `.venv/bin/python -m tests.benchmarks.resize`
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from service.pictures.imaging import decode, fit
from service.pictures.resizing import resize

PICTURE = Path(__file__).parents[2] / "service" / "models" / "golden" / "rocket.jpg"
PAIRS = 200


def time_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    image = decode(PICTURE.read_bytes())
    place = fit(image.shape[1], image.shape[0], 512)
    size = place.resized_width, place.resized_height
    picture = Image.fromarray(image)

    def ours() -> object:
        return resize(image, *size)

    def theirs() -> object:
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))

    pairs = [(time_ms(ours), time_ms(theirs)) for _ in range(PAIRS)]
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    ratio = statistics.median(pillow / own for own, pillow in pairs)
    levels = np.abs(np.asarray(ours(), dtype=int) - np.asarray(theirs(), dtype=int)).max()
    print(f"{picture.size} to {size}: {medians[0]:.2f} ms, Pillow {medians[1]:.2f} ms, ratio {ratio:.1f}")
    print(f"largest difference: {levels} of 255 levels")


if __name__ == "__main__":
    main()
