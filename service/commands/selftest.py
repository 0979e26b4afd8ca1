"""`unihead-serve selftest`: whether everything that serving needs works on this machine, in a few seconds."""

from __future__ import annotations

import argparse
import http.client
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from service.commands.endpoint import connect
from service.commands.spawn import spawn_service
from service.engine.contract import ModelTask
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES, check_golden
from service.errors import UniheadError
from service.pictures.imaging import decode, letterbox
from service.pictures.resizing import RESIZER
from service.rollout.loading import load_verified
from service.settings import Settings, read_settings

# What POST /predict says about each task.
_FIELDS: dict[ModelTask, tuple[str, ...]] = {
    "segment": ("segments", "mask"),
    "detect": ("detections",),
    "classify": ("classes",),
}
# Lossy formats give each pixel back within a few levels.
_LEVELS = 12


class _CheckError(UniheadError):
    """A check has failed; says how."""


def main(words: Sequence[str]) -> int:
    """Run the command; returns 0 if all checks hold.

    Raises:
        InvalidSetting: there is nothing to check.
    """
    parser = argparse.ArgumentParser("unihead-serve selftest", description=__doc__)
    default = read_settings().model
    parser.add_argument("--model", type=Path, default=default, help="ONNX file (default: %(default)s)")
    settings = read_settings(model=parser.parse_args(words).model)
    engines: list[Engine] = []

    def load() -> str:
        engines.append(load_verified(settings.model, settings, sha256=settings.model_sha256))
        return f"{engines[0].contract.version}, SHA-256 {engines[0].sha256[:12]}..."

    checks: list[tuple[str, Callable[[], str]]] = [
        ("model file: contract, operators, shapes, warm-up", load),
        ("golden pictures: the model answers as its file says", lambda: _check_golden(engines[0])),
        ("threads: a picture that is alone gets the same bits", lambda: _check_threads(engines[0])),
        ("formats: JPEG, PNG and WebP are read", _check_formats),
        ("service: answers over HTTP", lambda: _check_service(settings, engines[0])),
    ]
    for number, (name, check) in enumerate(checks):
        started = time.perf_counter()
        try:
            detail = check()
        except (UniheadError, OSError) as error:
            print(f"FAILED  {name}: {error}", file=sys.stderr)
            print(f"{number} of {len(checks)} checks held", file=sys.stderr)
            return 1
        print(f"ok  {name} ({detail}, {time.perf_counter() - started:.1f} s)")
    return 0


def _check_golden(engine: Engine) -> str:
    check_golden(engine)
    return f"{len(engine.contract.golden)} pictures, resized by {RESIZER}"


def _check_threads(engine: Engine) -> str:
    body = next(GOLDEN_PICTURES.glob("*.jpg")).read_bytes()
    square, _ = letterbox(decode(body), engine.contract.input_size, engine.contract.letterbox.fill)
    (one,), (many,) = engine.predict([square]), engine.predict([square], alone=True)
    if not all(np.array_equal(one.arrays[name], many.arrays[name]) for name in one.arrays):
        raise _CheckError(f"a pass on {engine.alone_threads} threads answers otherwise than one on a single thread")
    return f"1 and {engine.alone_threads}"


def _check_formats() -> str:
    rows, columns = np.mgrid[0:48, 0:64]
    pixels = np.stack([4 * columns, 5 * rows, 2 * (rows + columns)], axis=-1).astype(np.uint8)
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, quality=95)
        difference = np.abs(decode(file.getvalue()).astype(int) - pixels)
        if difference.mean() > _LEVELS:
            raise _CheckError(f"{kind} comes back with a mean difference of {difference.mean():.0f} levels")
    return "3 formats"


def _check_service(settings: Settings, engine: Engine) -> str:
    body = next(GOLDEN_PICTURES.glob("*.jpg")).read_bytes()
    words = ["--model", str(settings.model), "--log-level", "warning"]
    with spawn_service(words) as service, connect(service.url, 30) as connection:
        connection.request("POST", "/predict", body)
        response = connection.getresponse()
        answer = json.loads(response.read())
    wanted = {field for task in engine.contract.tasks for field in _FIELDS[task]}
    if response.status != http.client.OK or not wanted <= set(answer):
        raise _CheckError(f"POST /predict answers {response.status}: {answer}")
    return f"{answer['timing_ms']['total']:.0f} ms for a picture"
