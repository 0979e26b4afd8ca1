"""What a colour profile changes in answers where it is ignored, and what converting to sRGB costs.

Run from the repository's root: `python -m tests.benchmarks.colours FOLDER`, with sRGB pictures below FOLDER.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageCms

from service.commands.local import run_pass
from service.engine.engine import Engine, load_engine
from service.engine.postprocess import Answer
from service.rollout.shadow import compare
from service.settings import Settings
from service.telemetry.timing import Stopwatch
from tests.attacks.profiles import SPACES, rgb_profile
from tests.service.fakes import encode

_SRGB = ImageCms.createProfile("sRGB")
_RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC
_ROUNDS = 9
_SIZES = ((256, 256), (504, 378), (4032, 3024))


def measure_answers(engine: Engine, paths: Sequence[Path], space: str) -> dict[str, list[float]]:
    """Agreement with the answers about the sRGB pictures (first class, masks, boxes; 0..1), by what is done."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(space)))
    there = ImageCms.buildTransform(_SRGB, profile, "RGB", "RGB", renderingIntent=_RELATIVE)
    back = ImageCms.buildTransform(profile, _SRGB, "RGB", "RGB", renderingIntent=_RELATIVE)
    found: dict[str, list[list[float]]] = {"ignored": [], "converted": [], "sRGB, as JPEG 90 again": []}
    for path in paths:
        with Image.open(path) as picture:
            truth = picture.convert("RGB")
        stored = ImageCms.applyTransform(truth, there)
        assert stored is not None  # only a picture that is changed in its place is not given back
        converted = ImageCms.applyTransform(stored, back)
        assert converted is not None
        expected = _ask(engine, encode(truth, "PNG", compress_level=1))
        bodies = (encode(stored, "PNG", compress_level=1), encode(converted, "PNG", compress_level=1))
        for row, body in zip(found.values(), (*bodies, encode(truth, "JPEG", quality=90)), strict=True):
            agreement = compare(expected, _ask(engine, body))
            row.append([agreement.top_1 or 0.0, agreement.mask_iou or 0.0, agreement.box_f1 or 0.0])
    return {what: [statistics.fmean(column) for column in zip(*rows, strict=True)] for what, rows in found.items()}


def _ask(engine: Engine, body: bytes) -> Answer:
    return run_pass(engine, body, Stopwatch())


def measure_cost(space: str) -> str:
    """Milliseconds of making a transform, and of using it on pictures of three sizes."""
    profile = rgb_profile(space)

    def make() -> ImageCms.ImageCmsTransform:
        return ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, "RGB", "RGB")

    transform = make()
    pictures = [Image.new("RGB", size, (10, 200, 90)) for size in _SIZES]
    took = [f"{one.width} x {one.height} {_time(ImageCms.applyTransform, one, transform):.2f}" for one in pictures]
    return f"make {_time(make):.2f} ms, use {', '.join(took)} ms"


def _time(work: Callable[..., object], *arguments: object) -> float:
    took_s = []
    for _ in range(_ROUNDS):
        started = time.thread_time()
        work(*arguments)
        took_s.append(time.thread_time() - started)
    return min(took_s) * 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print cost and agreement of each colour space."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.colours", description=__doc__)
    parser.add_argument("folder", type=Path, help="sRGB pictures, as JPEG")
    parser.add_argument("--pictures", type=int, default=300, help="the first ones of a shuffle with seed 0")
    options = parser.parse_args(arguments)
    paths = sorted(options.folder.rglob("*.[jJ][pP]*[gG]"))
    random.Random(0).shuffle(paths)
    engine = load_engine(Settings().model, threads=1)
    for space in SPACES:
        print(f"{space}: {measure_cost(space)}")
        for what, (top_1, mask_iou, box_f1) in measure_answers(engine, paths[: options.pictures], space).items():
            print(f"  {what}: first class {top_1:.3f}, masks {mask_iou:.3f}, boxes {box_f1:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
