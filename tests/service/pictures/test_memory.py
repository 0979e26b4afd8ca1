from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.pictures.header import read_header
from service.pictures.imaging import decode, decode_for, letterbox
from service.pictures.limits import PictureHeader, estimate_bytes, find_reduction
from tests.attacks.cameras import before
from tests.attacks.sampling import jpeg_of_one_colour
from tests.service.fakes import encode

SIDE, SIZE = 1500, 256
ROOT = Path(__file__).parents[3]
STATUS = Path("/proc/self/status")


def make_large() -> Image.Image:
    down, across = np.mgrid[:SIDE, :SIDE]
    return Image.fromarray(np.stack([down + across, down ^ across, 3 * across], axis=-1).astype(np.uint8))


def make_bodies() -> dict[str, bytes]:
    """A large picture of each kind that is decoded in its own way."""
    rgb = make_large()
    grey, palette = rgb.convert("L"), rgb.convert("P")
    rgba = rgb.copy()
    rgba.putalpha(grey)
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6

    def jpeg(picture: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
        return encode(picture, "JPEG", **options)

    def png(picture: Image.Image, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
        return encode(picture, "PNG", compress_level=1, **options)

    return {
        "jpeg": jpeg(rgb),
        "jpeg 4:4:4 turned": jpeg(rgb, subsampling=0, exif=turned),
        "jpeg progressive": jpeg(rgb, progressive=True),
        "jpeg 4:4:4 progressive": jpeg(rgb, progressive=True, subsampling=0),
        "jpeg grey": jpeg(grey, progressive=True),
        "jpeg with stray bytes": before(b"\xff\xd1", bytes(9), body=jpeg(rgb, restart_marker_rows=1)),
        "jpeg progressive with stray bytes": before(b"\xff\xc4", bytes(9), body=jpeg(rgb, progressive=True)),
        "jpeg that only Pillow decodes": jpeg_of_one_colour(SIDE, SIDE, [(4, 2), (1, 1), (1, 1)]),
        "jpeg cmyk": jpeg(rgb.convert("CMYK"), subsampling=0),
        "jpeg cmyk progressive turned": jpeg(rgb.convert("CMYK"), subsampling=0, progressive=True, exif=turned),
        "png rgb": png(rgb),
        "png rgb turned": png(rgb, exif=turned),
        "png rgba": png(rgba),
        "png rgb with one colour transparent": png(rgb, transparency=(1, 2, 3)),
        "png grey": png(grey),
        "png grey with alpha": png(rgba.convert("LA")),
        "png grey with one shade transparent": png(grey, transparency=3),
        "png palette": png(palette),
        "png palette with alpha": png(palette, transparency=b"\x80" * 9),
        "png one bit": png(grey.convert("1")),
        "png 16 bits": png(wide),
        "webp": encode(rgb, "WEBP", method=0),
        "webp alpha": encode(rgba, "WEBP", method=0),
        "webp lossless": encode(rgb, "WEBP", lossless=True, method=0, quality=0),
        "webp lossless alpha turned": encode(rgba, "WEBP", lossless=True, method=0, quality=0, exif=turned),
    }


def read_status(field: str) -> int:
    return 1024 * int(STATUS.read_text().split(f"{field}:")[1].split()[0])


def measure(body: bytes, size: int | None) -> int:
    """Bytes that resident memory grows by while a picture is decoded, and letterboxed where a size is given."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest point counts from here
    before = read_status("VmRSS")
    if size is None:
        decode(body)
    else:
        pixels, original = decode_for(size, body)
        letterbox(pixels, size, (0, 0, 0), original=original)
    return read_status("VmHWM") - before


def main() -> None:
    bodies = make_bodies()
    for body in bodies.values():
        measure(body, SIZE)  # what is loaded once
    sys.stdout.write(json.dumps({name: [measure(body, None), measure(body, SIZE)] for name, body in bodies.items()}))


@pytest.mark.skipif(not STATUS.exists(), reason="no /proc: the highest point of memory cannot be read")
@pytest.mark.parametrize("resizer", ["cykooz.resizer", "pillow"])
def test_no_picture_needs_more_memory_than_was_said_before_it_was_decoded_nor_much_less(
    resizer: str, without_wheel: dict[str, str]
) -> None:
    # A process of its own, whose allocator gives back at once what is freed.
    usual = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment = {**(without_wheel if resizer == "pillow" else usual), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    measured: dict[str, list[int]] = json.loads(done.stdout)
    for name, body in make_bodies().items():
        for size, peak in zip((None, SIZE), measured[name], strict=True):
            said = estimate_bytes(read_header(body), size)
            copies = 2 * len(body) if "stray" in name or "only Pillow" in name else 0
            assert peak <= said + copies, (name, size)
            assert said <= 2 * peak + 4 * 2**20, (name, size)


@pytest.mark.parametrize(("longer", "reduction"), [(383, 1), (768, 2), (1536, 4), (3071, 4), (3072, 8), (16_384, 8)])
def test_a_jpeg_is_reduced_while_its_longer_side_keeps_enough(longer: int, reduction: int) -> None:
    for header in (PictureHeader("JPEG", longer, 9), PictureHeader("JPEG", 9, longer)):
        assert find_reduction(header, SIZE) == reduction
        assert find_reduction(header, None) == 1
    assert find_reduction(PictureHeader("PNG", longer, 9), SIZE) == 1


def test_the_file_alone_says_what_a_bomb_would_need() -> None:
    assert estimate_bytes(PictureHeader("JPEG", 5000, 5000), SIZE) < 10_000_000
    assert estimate_bytes(PictureHeader("JPEG", 5000, 5000, coefficients=75_000_000), SIZE) > 150_000_000
    assert estimate_bytes(PictureHeader("WEBP", 5000, 5000), SIZE) > 400_000_000


if __name__ == "__main__":
    main()
