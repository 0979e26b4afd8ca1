"""Small pictures of every kind, and what becomes of them when bits flip, ends are cut, and pieces are mixed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.service.fakes import encode, make_picture

_WIDTH, _HEIGHT = 23, 17


def make_seeds() -> dict[str, bytes]:
    """One small picture of each kind that the service takes, by name."""
    rgb = make_picture(_WIDTH, _HEIGHT)
    picture = Image.fromarray(rgb)
    alpha = Image.fromarray(np.arange(_WIDTH * _HEIGHT, dtype=np.uint8).reshape(_HEIGHT, _WIDTH))
    rgba = picture.copy()
    rgba.putalpha(alpha)
    wide = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "baseline.jpg": encode(picture, "JPEG"),
        "progressive.jpg": encode(picture, "JPEG", progressive=True),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "turned.jpg": encode(picture, "JPEG", exif=exif.tobytes()),
        "restarts.jpg": encode(picture, "JPEG", restart_marker_blocks=1),
        "rgb.png": encode(picture, "PNG"),
        "palette.png": encode(picture.convert("P"), "PNG", transparency=3),
        "alpha.png": encode(rgba, "PNG"),
        "grey16.png": encode(wide, "PNG"),
        "one_bit.png": encode(picture.convert("1"), "PNG"),
        "lossy.webp": encode(picture, "WEBP"),
        "lossless.webp": encode(picture, "WEBP", lossless=True),
        "alpha.webp": encode(rgba, "WEBP"),
    }


def make_prefixes(bodies: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Every proper prefix of each picture, named by its length."""
    for name, body in bodies.items():
        for length in range(1, len(body)):
            yield f"{name}[:{length}]", body[:length]


def make_mutants(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutants of the seeds, the same for the same seed; each names what it came from."""
    chance = random.Random(seed)
    seeds = make_seeds()
    names = sorted(seeds)
    for index in range(number):
        name = chance.choice(names)
        how, body = mutate(bytearray(seeds[name]), seeds[chance.choice(names)], chance)
        yield f"{index}:{how}:{name}", body


def mutate(body: bytearray, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    how = chance.choice(["flip", "flip", "byte", "cut", "drop", "repeat", "splice", "number"])
    # Some where the header is, because that is where most of the meaning lies.
    end = len(body) if chance.random() < 0.5 else min(len(body), 64)
    start = chance.randrange(min(len(body) - 1, end))
    stop = min(len(body), start + chance.randint(1, 32))
    if how == "flip":
        for _ in range(chance.randint(1, 8)):
            body[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif how == "byte":
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(end)] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    elif how == "cut":
        del body[max(1, start) :]
    elif how == "drop":
        del body[start:stop]
    elif how == "repeat":
        body[start:start] = body[start:stop] * chance.randint(1, 200)
    elif how == "splice":
        body = bytearray(body[:start]) + other[chance.randrange(len(other)) :]
    else:
        width = chance.choice([2, 4])
        value = chance.choice([0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, chance.getrandbits(8 * width)])
        body[start : start + width] = value.to_bytes(width, chance.choice(["big", "little"]))
    return how, bytes(body) or b"\0"
