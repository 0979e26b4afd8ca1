"""Whether a JPEG is whole, as djpeg sees it: prefixes and mutants of twenty pictures, and who disagrees."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from PIL import Image, ImageChops

from service.errors import RequestError
from service.pictures.header import read_header
from service.pictures.imaging import decode
from tests.attacks.mutants import mutate
from tests.attacks.sampling import adobe, sampled_jpeg
from tests.service.fakes import encode, make_picture

Verdict: TypeAlias = Literal["whole", "damaged", "not decoded"]
_WIDTH, _HEIGHT = 61, 47
# Of all that libjpeg warns of, what it says where coded data are missing or make no sense.
_DAMAGE = re.compile(rb"premature end of data segment|bad Huffman code|instead of RST")
_WITH_WARNINGS = 2


def make_twenty() -> dict[str, bytes]:
    """A small JPEG of every kind that cameras and tools write, by name."""
    rgb = Image.fromarray(make_picture(_WIDTH, _HEIGHT))
    ycc, inks = rgb.convert("YCbCr"), ImageChops.invert(rgb.convert("CMYK"))
    grey = rgb.convert("L")
    quarter = [(2, 2), (1, 1), (1, 1)]
    return {
        "4:2:0": encode(rgb, "JPEG", subsampling=2),
        "4:2:2": encode(rgb, "JPEG", subsampling=1, quality=95),
        "4:4:4": encode(rgb, "JPEG", subsampling=0, quality=60),
        "4:4:0": sampled_jpeg(ycc, [(1, 2), (1, 1), (1, 1)]),
        "4:1:1": sampled_jpeg(ycc, [(4, 1), (1, 1), (1, 1)]),
        "optimised": encode(rgb, "JPEG", optimize=True),
        "grey": encode(grey, "JPEG"),
        "grey, restarts": encode(grey, "JPEG", restart_marker_rows=1),
        "restarts": encode(rgb, "JPEG", restart_marker_blocks=1),
        "restarts by row": encode(rgb, "JPEG", restart_marker_rows=1),
        "progressive": encode(rgb, "JPEG", progressive=True),
        "progressive 4:4:4": encode(rgb, "JPEG", progressive=True, subsampling=0, quality=90),
        "progressive grey": encode(grey, "JPEG", progressive=True),
        "progressive, restarts": encode(rgb, "JPEG", progressive=True, restart_marker_blocks=4),
        "a scan each": sampled_jpeg(ycc, quarter, interleaved=False),
        "a scan each, restarts": sampled_jpeg(ycc, quarter, interleaved=False, restart=5),
        "cmyk": encode(inks, "JPEG", subsampling=0),
        "progressive cmyk": encode(inks, "JPEG", subsampling=0, progressive=True),
        "ycck 4:2:0": sampled_jpeg(inks, [(2, 2), (1, 1), (1, 1), (1, 1)], head=adobe(2)),
        "4:1:0": sampled_jpeg(ycc, [(4, 2), (1, 1), (1, 1)], restart=2),
    }


def make_prefixes(step: int = 1) -> Iterator[tuple[str, bytes]]:
    """Every prefix of each of the twenty, or one of `step`."""
    for name, body in make_twenty().items():
        for length in range(3, len(body), step):
            yield f"{name}[:{length}]", body[:length]


def make_jpeg_mutants(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many mutants of the twenty, the same for the same seed."""
    chance = random.Random(seed)
    twenty = make_twenty()
    names = sorted(twenty)
    for index in range(number):
        name, other = chance.choice(names), twenty[chance.choice(names)]
        how, body = mutate(bytearray(twenty[name]), other, chance)
        yield f"{index}:{how}:{name}", body


def ask_djpeg(body: bytes) -> tuple[Verdict, str]:
    """What djpeg makes of a JPEG, and the last thing that it said of what is wrong with it."""
    command = ["djpeg", "-verbose", "-verbose", "-verbose", "-outfile", "/dev/null"]
    done = subprocess.run(command, input=body, capture_output=True, check=False)
    said = done.stderr.splitlines()
    if done.returncode not in {0, _WITH_WARNINGS}:
        return "not decoded", said[-1].decode("latin-1") if said else ""
    damage = [line for line in said if _DAMAGE.search(line)]
    return ("damaged", damage[0].decode("latin-1")) if damage else ("whole", "")


def has_djpeg() -> bool:
    """Whether djpeg is there (Debian package libjpeg-turbo-progs)."""
    return shutil.which("djpeg") is not None


def ask_service(body: bytes) -> tuple[bool, str]:
    """Whether the service takes it, and what it says where it does not."""
    try:
        decode(body)
    except RequestError as error:
        return False, f"{type(error).__name__}: {error} ({error.__cause__})"
    return True, ""


@dataclass(slots=True)
class Comparison:
    """What djpeg and the service said about a number of files.

    Attributes:
        counts: files by djpeg's verdict and by whether the service took them.
        taken: what the service took and djpeg calls less than whole.
        no_code: those of them where a code that is none, in sampling that only Pillow decodes, was all that was wrong.
        refused: what the service refused and djpeg calls whole.
    """

    counts: Counter[tuple[Verdict, bool]] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)
    no_code: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Files in all."""
        return self.counts.total()


def compare(items: Iterable[tuple[str, bytes]]) -> Comparison:
    """Ask both about each; djpeg runs in four processes at a time."""
    found = Comparison()
    with ThreadPoolExecutor(4) as pool:
        for name, body, (verdict, why), (taken, reason) in pool.map(_ask_both, items):
            found.counts[verdict, taken] += 1
            if taken and verdict != "whole":
                is_no_code = "bad Huffman code" in why and not read_header(body).is_usual
                (found.no_code if is_no_code else found.taken).append(f"{name}: {verdict}, {why}")
            elif not taken and verdict == "whole":
                found.refused.append(f"{name}: {reason}")
    return found


def _ask_both(item: tuple[str, bytes]) -> tuple[str, bytes, tuple[Verdict, str], tuple[bool, str]]:
    name, body = item
    return name, body, ask_djpeg(body), ask_service(body)
