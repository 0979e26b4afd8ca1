"""Forward passes: as many at once as there are CPUs, and of small batches where that is worth it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from service.engine.engine import Engine, Prediction
from service.errors import ModelOutputInvalid
from service.pictures.imaging import UInt8Array
from service.telemetry.metrics import Metrics
from service.telemetry.timing import Stopwatch


@dataclass(slots=True, eq=False)
class _Batch:
    """Pictures that share a pass; the worker that came first leads, the others wait for it."""

    engine: Engine
    squares: list[UInt8Array] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    outcomes: list[Prediction | ModelOutputInvalid] = field(default_factory=list)
    error: BaseException | None = None


class PassRunner:
    """Runs passes for worker threads; each gets its own picture's prediction."""

    def __init__(self, metrics: Metrics, *, parallel: int, max_batch: int = 1, max_delay_ms: float = 0) -> None:
        """Run nothing yet.

        Args:
            metrics: where passes are counted.
            parallel: passes at once.
            max_batch: pictures in one pass at most.
            max_delay_ms: milliseconds that the first picture of a batch waits for others.
        """
        self._metrics = metrics
        self._slots = threading.Semaphore(parallel)
        self._max_batch = max_batch
        self._max_delay_s = max_delay_ms / 1000
        self._lock = threading.Lock()
        self._open: _Batch | None = None

    def run(self, engine: Engine, square: UInt8Array, watch: Stopwatch, *, alone: bool) -> tuple[Prediction, int]:
        """Wait for a place, then run a pass; laps `queue` and `forward`.

        Args:
            engine: the model; pictures of two models never share a pass.
            square: [S, S, 3] RGB, letterboxed.
            watch: of the picture.
            alone: no other picture waits or is worked on, so this one may take all CPUs.

        Returns:
            The picture's prediction, and how many pictures shared the pass.

        Raises:
            ModelOutputInvalid: what the model says about this picture cannot be true.
        """
        if self._max_batch > 1:
            return self._run_in_batch(engine, square, watch)
        with self._slots:
            watch.lap("queue")
            (outcome,) = self._pass(engine, [square], alone=alone)
        watch.lap("forward")
        return self._require_valid(outcome), 1

    def _pass(self, engine: Engine, squares: list[UInt8Array], *, alone: bool) -> list[Prediction | ModelOutputInvalid]:
        self._metrics.forward_passes.inc()
        return engine.predict_each(squares, alone=alone)

    def _require_valid(self, outcome: Prediction | ModelOutputInvalid) -> Prediction:
        if isinstance(outcome, ModelOutputInvalid):
            self._metrics.invalid_outputs.inc()
            raise outcome
        return outcome

    def _run_in_batch(self, engine: Engine, square: UInt8Array, watch: Stopwatch) -> tuple[Prediction, int]:
        batch, place = self._join(engine, square)
        if place > 0:
            batch.done.wait()
        else:
            batch.full.wait(self._max_delay_s)
            with self._slots:
                self._close(batch)
                watch.lap("queue")
                try:
                    batch.outcomes = self._pass(engine, batch.squares, alone=False)
                except BaseException as error:  # noqa: BLE001 - all who wait must hear of it, whatever it is
                    batch.error = error
                batch.done.set()
        watch.lap("forward")
        if batch.error is not None:
            raise batch.error
        return self._require_valid(batch.outcomes[place]), len(batch.squares)

    def _join(self, engine: Engine, square: UInt8Array) -> tuple[_Batch, int]:
        with self._lock:
            batch = self._open
            if batch is None or batch.engine is not engine:
                batch = self._open = _Batch(engine)
            batch.squares.append(square)
            place = len(batch.squares) - 1
            if len(batch.squares) == self._max_batch:
                self._open = None
                batch.full.set()
            return batch, place

    def _close(self, batch: _Batch) -> None:
        with self._lock:
            if self._open is batch:
                self._open = None
