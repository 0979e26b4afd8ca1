"""What a worker thread does about one flight: from the picture's bytes to the answer of its pass."""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.postprocess import Answer
from service.engine.prepare import prepare
from service.pictures.limits import PictureLimits
from service.scheduling.admission import Admission
from service.scheduling.batches import PassRunner
from service.scheduling.flight import Flight
from service.scheduling.job import too_late
from service.telemetry.metrics import Metrics
from service.telemetry.timing import SHARED_STAGES, Stage


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Decodes, letterboxes and runs the pass, as long as anybody waits; counts and traces what it did.

    Attributes:
        runner: of the passes.
        metrics: where their stages, and pictures that were dropped, are counted.
        admission: knows whether a picture is alone.
        limits: beyond which a picture is refused.
    """

    runner: PassRunner
    metrics: Metrics
    admission: Admission
    limits: PictureLimits

    def run(self, flight: Flight) -> Answer:
        """Answer about a picture, from a pass that is over where the flight brings its answer.

        Raises:
            DeadlineExceeded: nobody waits any more.
            EmptyBody, UnsupportedImage, TooManyPixels, DamagedImage, PictureTooCostly, ModelOutputInvalid: see
                `prepare` and `PassRunner.run`.
        """
        leader, engine = flight.waiters[0], flight.engine
        watch, contract = leader.watch, engine.contract
        watch.lap("queue")
        self._require_wanted(flight)
        if flight.answer is not None:
            return flight.answer
        square, place = prepare(flight.picture, contract, watch, limits=self.limits)
        self._require_wanted(flight)
        prediction, shared_by = self.runner.run(engine, square, watch, alone=self.admission.is_alone())
        timings_ms: dict[Stage, float] = {stage: watch.timings_ms[stage] for stage in SHARED_STAGES}
        self.metrics.observe_shared(timings_ms, batch_size=shared_by)
        trace, version = leader.trace, contract.version
        origin = None if trace is None else trace.record_pass(model_version=version, batch_size=shared_by)
        return Answer(prediction, place, contract, origin)

    def _require_wanted(self, flight: Flight) -> None:
        if flight.close_unless_wanted():
            self.metrics.dropped_images.inc()
            raise too_late()
