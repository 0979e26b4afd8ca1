"""Who gets the next forward pass: pictures are decoded in a pool, the model has one thread, the event loop waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import simplejpeg

from service.engine import Engine, Prediction
from service.errors import ContractError, NotReady
from service.imaging import Letterbox, UInt8Array, decode, letterbox
from service.metrics import Metrics
from service.timing import Stage, Stopwatch


@dataclass(frozen=True, slots=True)
class Answer:
    """What one forward pass says about one picture, and what it took.

    Attributes:
        prediction: all three tasks, in pixels of the network input.
        place: the way back to the original picture.
        timings_ms: decode, preprocess, queue, forward.
    """

    prediction: Prediction
    place: Letterbox
    timings_ms: Mapping[Stage, float]


class Scheduler:
    """One picture, one forward pass, first come first served."""

    def __init__(self, engine: Engine, pool: Executor, metrics: Metrics, *, max_pixels: int) -> None:
        """Take what a picture passes through.

        Args:
            engine: the model.
            pool: threads that decode and letterbox.
            metrics: where passes and their stages are counted.
            max_pixels: width times height beyond which a picture is refused.
        """
        self._engine = engine
        self._pool = pool
        self._metrics = metrics
        self._max_pixels = max_pixels
        self._forward_thread: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Warm up decoder and model, because the first picture of each is slow; then take pictures.

        Raises:
            ContractError: the model does not answer.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forward")
        loop = asyncio.get_running_loop()
        body = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), dtype=np.uint8))
        square, _ = await loop.run_in_executor(self._pool, self._prepare, body, Stopwatch())
        try:
            for _ in range(2):
                await loop.run_in_executor(thread, self._engine.predict, [square])
        except Exception as error:  # a runtime raises what it likes
            thread.shutdown(wait=False)
            raise ContractError(f"the model cannot answer a blank picture: {error}") from error
        self._forward_thread = thread

    async def stop(self) -> None:
        """Take no more pictures; wait for those that were taken."""
        thread, self._forward_thread = self._forward_thread, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)

    async def submit(self, body: bytes) -> Answer:
        """Decode one picture and run one forward pass over it.

        Raises:
            NotReady: before `start` or after `stop`.
            EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage: see `service.imaging.decode`.
        """
        if self._forward_thread is None:
            raise NotReady("no model is loaded and warm yet; ask /readyz and try again")
        thread, loop, watch = self._forward_thread, asyncio.get_running_loop(), Stopwatch()
        square, place = await loop.run_in_executor(self._pool, self._prepare, body, watch)
        prediction = await loop.run_in_executor(thread, self._forward, square, watch)
        self._metrics.observe_shared(watch.timings_ms)
        return Answer(prediction, place, watch.timings_ms)

    def _prepare(self, body: bytes, watch: Stopwatch) -> tuple[UInt8Array, Letterbox]:
        watch.lap("queue")
        picture = decode(body, self._max_pixels)
        watch.lap("decode")
        contract = self._engine.contract
        prepared = letterbox(picture, contract.input_size, contract.letterbox.fill)
        watch.lap("preprocess")
        return prepared

    def _forward(self, square: UInt8Array, watch: Stopwatch) -> Prediction:
        watch.lap("queue")
        self._metrics.forward_passes.inc()
        (prediction,) = self._engine.predict([square])
        watch.lap("forward")
        return prediction
