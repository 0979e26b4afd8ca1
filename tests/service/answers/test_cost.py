"""What answers are foretold to cost, held against what Python and numpy take for the costliest masks."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.answers.cost import NOTHING, AnswerCost, estimate_json, estimate_overlay, estimate_png
from service.answers.finish import Content, Look, Wanted, finish_json, finish_overlay, finish_png
from service.answers.masks import MaskFormat
from service.answers.render import PictureFormat
from service.answers.schemas import PredictResponse
from service.engine.engine import Prediction
from service.engine.postprocess import Answer
from service.pictures.header import read_header
from service.pictures.imaging import fit
from service.pictures.limits import DEFAULT_LIMITS, PictureHeader
from service.telemetry.timing import Stopwatch
from tests.service.fakes import encode, make_contract

# The embedded model's square and mask.
SIZE, STRIDE = 320, 4


def make_answer(width: int, height: int) -> Answer:
    """Of a mask in which no cell is like its neighbour."""
    cells = np.random.default_rng(0).integers(0, 3, (SIZE // STRIDE, SIZE // STRIDE), dtype=np.uint8)
    nothing = np.zeros(0, dtype=np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "mask": cells,
        "boxes": nothing.reshape(0, 4),
        "scores": nothing,
        "labels": nothing.astype(np.int64),
        "class_probs": np.ones(3, dtype=np.float32) / 3,
    }
    contract = make_contract(input_size=SIZE, mask_stride=STRIDE)
    return Answer(Prediction(arrays), fit(width, height, SIZE), contract)


def measure(make: Callable[[Answer, Stopwatch], Content], answer: Answer) -> AnswerCost:
    """What Python and numpy allocate; copies inside of Pillow are not seen, and are as large as the mask."""
    make(dataclasses.replace(answer, place=fit(64, 64, SIZE)), Stopwatch())  # what is kept from the first time on
    tracemalloc.start()
    try:
        made = make(answer, Stopwatch())
        return AnswerCost(tracemalloc.get_traced_memory()[1], len(made.data))
    finally:
        tracemalloc.stop()


def require_within(measured: AnswerCost, foretold: AnswerCost) -> None:
    assert measured.making <= foretold.making
    assert measured.kept <= foretold.kept
    assert foretold.making <= 3 * measured.making + 2**21, "foretelling too much keeps others waiting"


@pytest.mark.parametrize("size", [(1500, 1500), (2600, 700), (700, 2600)])
@pytest.mark.parametrize("form", ["png", "rle", "polygons", "raw", "none"])
def test_no_answer_costs_more_than_foretold(form: MaskFormat, size: tuple[int, int]) -> None:
    wanted, answer = Wanted(mask=form), make_answer(*size)

    def make(answer: Answer, watch: Stopwatch) -> Content:
        return finish_json(answer, watch, wanted=wanted, shape=PredictResponse)

    foretold = estimate_json(PictureHeader("JPEG", *size), wanted, answer.contract)
    measured = measure(make, answer)
    if form == "none":
        assert foretold == NOTHING
        assert measured.making < 2**20
        return
    require_within(measured, foretold)


def test_a_mask_alone_costs_no_more_than_foretold() -> None:
    answer = make_answer(1500, 1500)
    require_within(measure(finish_png, answer), estimate_png(PictureHeader("PNG", 1500, 1500), answer.contract))


def test_what_has_no_mask_costs_nothing_that_counts() -> None:
    contract = make_contract(tasks=("detect", "classify"))
    assert estimate_json(PictureHeader("PNG", 5000, 5000), Wanted(), contract) == NOTHING


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("side", [600, 1800])
def test_a_drawing_costs_no_more_than_foretold(form: PictureFormat, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture, look = encode(Image.fromarray(noise), "JPEG"), Look(format=form, max_side=1000)

    def make(answer: Answer, watch: Stopwatch) -> Content:
        return finish_overlay(answer, watch, picture=picture, look=look, limits=DEFAULT_LIMITS)

    measured, foretold = measure(make, make_answer(side, side)), estimate_overlay(read_header(picture), look)
    assert measured.making <= foretold.making
    assert measured.kept <= foretold.kept


def test_a_drawing_costs_what_decoding_does_where_that_is_more() -> None:
    large, look = PictureHeader("WEBP", 5000, 5000), Look()
    assert estimate_overlay(large, look).making > 16 * 25_000_000
    assert estimate_overlay(large, look).kept == look.max_side**2 * 3 // 2
