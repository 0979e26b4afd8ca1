"""From the tensor of an inference request to the outputs about it, by whatever protocol both travel.

Each picture is a picture like any other to queue and cache; boxes and masks are in pixels of what was sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.answers.cost import NOTHING, AnswerCost
from service.api.oip.metadata import DATATYPES, FILES
from service.api.oip.tensors import MOST_JSON_VALUES, Piece, encode
from service.api.oip.wire import InferRequest
from service.api.respond import Question, Reply, ask, look_at_each, require_all
from service.api.router import Caller
from service.engine.contract import ModelContract
from service.engine.postprocess import Answer
from service.engine.prepare import Look
from service.errors import MalformedRequest
from service.telemetry.timing import Stopwatch

# Of a class id in JSON, with its comma.
_JSON_DIGITS = 4
# By name.
Outputs: TypeAlias = dict[str, Piece]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What each picture of a request is asked for.

    Attributes:
        outputs: by name, in the order they were asked for, and whether each comes as binary data.
        pictures: of the request.
        as_files: in pixels of the original; else as the network gives them.
        max_pixels: that all masks as binary data have together, if they are those of several pictures.
    """

    outputs: Mapping[str, bool]
    pictures: int
    as_files: bool
    max_pixels: int


def choose_outputs(asked: InferRequest, contract: ModelContract, max_pixels: int) -> Wanted:
    """Find out what is asked about each picture.

    Args:
        asked: the request.
        contract: of the model.
        max_pixels: that all masks as binary data may have together, if they are those of several pictures.

    Raises:
        MalformedRequest: an output is named that the model does not have.
    """
    known = tuple(contract.output_shapes)
    for name in asked.outputs:
        if name not in known:
            raise MalformedRequest(f"there is no output {name[:80]!r}; there are {', '.join(known)}")
    outputs = asked.outputs or dict.fromkeys(known, asked.binary)
    return Wanted(outputs, len(asked.values), asked.input == FILES, max_pixels)


async def ask_all(
    caller: Caller, question: Question, asked: InferRequest, wanted: Wanted, contract: ModelContract
) -> list[Reply[Outputs]]:
    """Ask about each picture, once the room for all answers is foretold; where one fails, all do.

    Raises:
        RequestError, Unavailable, ModelOutputInvalid, ClientDisconnected: of the first picture that fails.
        MalformedRequest: the masks would be too large for one answer, or the pictures' outputs do not fit together.
    """
    pictures = list(asked.values)
    watches, share = [Stopwatch() for _ in pictures], caller.share
    traces = caller.trace_pictures(watches)
    looks = require_all(await look_at_each(caller, question, pictures, watches))
    costs = [_estimate(seen, wanted, contract) for seen in looks]
    share.expect(sum(cost.kept for cost in costs))
    collect = partial(_collect, wanted=wanted)
    jobs = (
        question.make_job(picture, collect, watch, trace, seen, cost.making, share)
        for picture, watch, trace, seen, cost in zip(pictures, watches, traces, looks, costs, strict=True)
    )
    tasks = [asyncio.ensure_future(ask(caller.service, question, job)) for job in jobs]
    try:
        replies = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    for name in wanted.outputs:
        if len({reply.made[name].shape for reply in replies}) > 1:
            raise MalformedRequest(f"the pictures have different sizes; ask for their {name} one by one")
    return replies


def _estimate(seen: Look, wanted: Wanted, contract: ModelContract) -> AnswerCost:
    """Foretell what a picture's outputs cost in memory, of which only masks can be large.

    Raises:
        MalformedRequest: the masks of all pictures, if they are like this one's, are too large for one answer.
    """
    binary = wanted.outputs.get("mask")
    if binary is None:
        return NOTHING
    shape = (seen.height, seen.width) if wanted.as_files else contract.output_shapes["mask"]
    _check_mask(shape, wanted)
    text = math.prod(shape) * (1 if binary else _JSON_DIGITS)
    return AnswerCost(making=math.prod(shape) + 2 * text, kept=2 * text)  # of each picture, and all of them joined


def _collect(answer: Answer, watch: Stopwatch, *, wanted: Wanted) -> Outputs:
    """In a worker thread: write one picture's outputs, those that were asked for; laps `postprocess` and `encode`."""
    prediction, place, most = answer.prediction, answer.place, answer.contract.max_detections
    make: dict[str, Callable[[], NDArray[Any]]] = {
        "boxes": lambda: _pad(place.boxes_to_original(prediction.boxes), most),
        "scores": lambda: _pad(prediction.scores, most),
        "labels": lambda: _pad(prediction.labels, most),
        "num_detections": lambda: np.array(len(prediction.scores), dtype=np.int64),
        "mask": lambda: answer.mask() if wanted.as_files else prediction.mask,
        "class_probs": lambda: prediction.class_probs,
    }
    arrays = {name: make[name]() for name in wanted.outputs}
    watch.lap("postprocess")
    outputs = {name: encode(arrays[name], DATATYPES[name], binary=binary) for name, binary in wanted.outputs.items()}
    watch.lap("encode")
    return outputs


def _check_mask(shape: tuple[int, ...], wanted: Wanted) -> None:
    """Hold the masks of an answer against what one may carry, before they are made."""
    pixels = wanted.pictures * math.prod(shape)
    if not wanted.outputs["mask"] and pixels > MOST_JSON_VALUES:
        raise MalformedRequest(
            f"mask has {pixels} values, and a tensor in JSON {MOST_JSON_VALUES} at most; ask for it as binary data "
            "(binary_data of the output, or binary_data_output), or name the outputs that you need"
        )
    if wanted.pictures > 1 and pixels > wanted.max_pixels:
        raise MalformedRequest(
            f"the masks of {wanted.pictures} pictures have {pixels} pixels, and {wanted.max_pixels} are the limit for "
            "one answer; ask for fewer pictures at once, or name the outputs that you need"
        )


def _pad(values: NDArray[Any], length: int) -> NDArray[Any]:
    padded = np.zeros((length, *values.shape[1:]), dtype=values.dtype)
    padded[: len(values)] = values
    return padded
