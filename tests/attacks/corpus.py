"""Every file of a folder, sent to a service and shown by Pillow and Chromium: whole, upright, in its colours?

Run from the repository's root: `python -m tests.attacks.corpus FOLDER [FOLDER ...]`. Exit code 1 where more than one
in 300 that the others show whole is refused, one comes out turned or off-colour, or one that is cut passes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.commands.spawn import spawn_service
from service.errors import EmptyBody, UnsupportedImage
from service.pictures.header import Kind, sniff_kind
from tests.attacks.asking import Client
from tests.attacks.feeding import find_files
from tests.attacks.whole import ask_djpeg, has_djpeg
from tests.service.fakes import make_contract
from tests.service.onnx_models import write_tiny_model

# A picture as it is compared: [h, w, 3] RGB, its longer side at most _SIDE.
Thumb: TypeAlias = NDArray[np.float64]
_SIDE, _LEVELS, _REFUSED_OF = 256, 2.0, 300
# A picture with nothing drawn over it: the model serves boxes alone, and none of them scores 1.
_PATH = "/overlay?format=png&score_threshold=1"
_HEADERS = {"Content-Type": "application/octet-stream"}
_SHOW = """async url => {
  const image = new Image(); image.src = url; await image.decode();
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  pen.fillStyle = "white"; pen.fillRect(0, 0, canvas.width, canvas.height); pen.drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one file.

    Attributes:
        path: of the file.
        status: that the service gave.
        verdict: one of _VERDICTS.
        note: what the service said, or by how much it differs.
    """

    path: Path
    status: int | str
    verdict: str
    note: str = ""


WHOLE, REFUSED, CUT, CUT_PASSES = "whole", "whole and refused", "cut and refused", "cut and passes"
TURNED, OFF_COLOUR, ODD = "turned", "off-colour", "taken, not shown by Pillow"
LIMITED, OTHER = "beyond a limit", "no JPEG, PNG or WebP"
_TAKEN, _LIMIT_STATUS = 200, 413
# A machine that does much else must not make refusals of large drawings.
_PATIENCE_MS = 60_000


def show_by_pillow(body: bytes) -> Thumb:
    """The upright picture over white, scaled down.

    Raises:
        Exception: of nearly any type, where Pillow does not show it.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(body), formats=["JPEG", "PNG", "WEBP"]) as picture:
        warnings.simplefilter("ignore")
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I"):
            grey = np.asarray(upright)
            clear = grey == upright.info.get("transparency", -1)
            upright = Image.fromarray(np.where(clear, 255, grey >> 8).astype(np.uint8))
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        return _shrink(upright.convert("RGB"))


def _shrink(picture: Image.Image) -> Thumb:
    scale = min(1.0, _SIDE / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX), dtype=np.float64)


@contextlib.contextmanager
def open_shower() -> Iterator[Callable[[bytes], Thumb] | None]:
    """Chromium as a function that shows a picture, or None where it is not installed."""
    path = shutil.which("chromium")
    if path is None:
        yield None
        return
    from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415 - not everybody has it who has Pillow

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()

        def show(body: bytes) -> Thumb:
            try:
                shown = page.evaluate(_SHOW, f"data:image/x;base64,{base64.b64encode(body).decode()}")
            except Error as error:
                raise ValueError("Chromium does not show it") from error
            with Image.open(io.BytesIO(base64.b64decode(shown))) as picture:
                return _shrink(picture.convert("RGB"))

        try:
            yield show
        finally:
            browser.close()


def judge(path: Path, body: bytes, status: int | str, answer: bytes, show: Callable[[bytes], Thumb] | None) -> Finding:
    """Hold what the service made of a file against what others show."""
    taken = status == _TAKEN
    said = "" if taken else answer.decode("utf-8", "replace")[:300]
    try:
        kind = sniff_kind(body)
    except (EmptyBody, UnsupportedImage):
        return Finding(path, status, OTHER, said)
    expected = _show(body, kind)
    if taken and expected is not None:
        with Image.open(io.BytesIO(answer)) as picture:
            return _compare(path, _shrink(picture), expected)
    if taken:
        is_damaged = kind == "JPEG" and has_djpeg() and ask_djpeg(body)[0] == "damaged"
        return Finding(path, status, CUT_PASSES if is_damaged else ODD)
    if status == _LIMIT_STATUS or "picture_too_costly" in said:
        return Finding(path, status, LIMITED, said)
    is_whole = expected is not None and (show is None or _is_shown(show, body))
    return Finding(path, status, REFUSED if is_whole else CUT, said)


def _show(body: bytes, kind: Kind) -> Thumb | None:
    """The picture as Pillow shows it; None where it does not, or where parts of it are missing."""
    if kind == "JPEG" and has_djpeg() and ask_djpeg(body)[0] == "damaged":
        return None
    try:
        return show_by_pillow(body)
    except Exception:  # noqa: BLE001 - Pillow raises nearly every type
        return None


def _is_shown(show: Callable[[bytes], Thumb], body: bytes) -> bool:
    try:
        show(body)
    except ValueError:
        return False
    return True


def _compare(path: Path, found: Thumb, expected: Thumb) -> Finding:
    if found.shape != expected.shape:
        return Finding(path, 200, TURNED, f"{found.shape} for {expected.shape}")
    turns = [np.rot90(one, count) for one in (found, found[::-1]) for count in range(4)]
    off = [float(np.abs(one - expected).mean()) for one in turns if one.shape == expected.shape]
    if off[0] < _LEVELS:
        return Finding(path, 200, WHOLE)
    return Finding(path, 200, TURNED if min(off) < _LEVELS else OFF_COLOUR, f"mean difference {off[0]:.1f} levels")


def judge_folder(folder: Path, model: Path) -> list[Finding]:
    """Send all files below a folder to a service of their own and judge each."""
    files = find_files(folder)

    async def send(host: str, port: int) -> list[tuple[int | str, bytes]]:
        answers = []
        async with Client(host, port) as client:
            for path in files:
                answer = await client.ask(_PATH, path.read_bytes(), _HEADERS, timeout_s=_PATIENCE_MS / 1000)
                answers.append((answer.outcome, answer.body))
        return answers

    words = ["--model", str(model), "--log-level", "error", "--max-body-bytes", str(2**26), "--max-frames", "1000"]
    words += ["--request-timeout-ms", str(_PATIENCE_MS)]
    with spawn_service(words) as service:
        answers = asyncio.run(send(service.host, service.port))
    with open_shower() as show:
        return [
            judge(path, path.read_bytes(), status, body, show)
            for path, (status, body) in zip(files, answers, strict=True)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what became of each folder; returns 1 where something is out of its bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.corpus", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--all", action="store_true", help="name what is cut, limited or another format too")
    options = parser.parse_args(arguments)
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder, "boxes.onnx"), make_contract(tasks=("detect",)))
        for each in options.folders:
            findings = judge_folder(each, model)
            counts = Counter(finding.verdict for finding in findings)
            print(f"{each.name}: {len(findings)} files: " + ", ".join(f"{n} {one}" for one, n in counts.most_common()))
            for finding in findings:
                if options.all or finding.verdict not in {WHOLE, CUT, LIMITED, OTHER}:
                    print(f"  {finding.verdict}: {finding.path.relative_to(each)} ({finding.status}) {finding.note}")
            passed &= counts[REFUSED] * _REFUSED_OF <= counts[WHOLE] + counts[REFUSED]
            passed &= not counts[TURNED] + counts[OFF_COLOUR] + counts[CUT_PASSES]
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
