"""What Prometheus reads: milliseconds per image by stage, forward passes, requests, and which model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, TypeAlias, get_args

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.errors import OverloadReason
from service.telemetry.statistics import Statistics
from service.telemetry.timing import SHARED_STAGES, TASK_STAGES, Stage

Task: TypeAlias = Literal["segment", "detect", "classify", "predict", "overlay", "infer", "deepstack"]
Outcome: TypeAlias = Literal["swapped", "unchanged", "refused"]
CacheResult: TypeAlias = Literal["hit", "miss", "coalesced", "bypass"]
Protocol: TypeAlias = Literal["http", "grpc"]

# Close together where a small model on a CPU answers (2 to 100 ms), then wide up to the patience of a client.
BUCKETS_MS = (0.5, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10000)
LAG_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The service's metrics in one registry that is handed in, so that two apps in one process never mix.

    Attributes:
        statistics: the same in the words of Triton's statistics extension, which Prometheus does not read.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.statistics = Statistics()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = Histogram(
            "unihead_ms_per_image",
            "Milliseconds that one picture took, by stage. decode: bytes to upright RGB. preprocess: letterbox. "
            "queue: waiting for a worker, for the forward pass, or for the pass that another request began. forward: "
            "the model. postprocess: boxes, classes and mask of the original picture, or drawing them over it. encode: "
            "PNG, JSON, the drawn picture. other: what is left of the total. total: from the body's last byte to the "
            "finished answer, the client's network excluded. task is the route; stages of a pass, which may serve "
            "several tasks, say `shared`, so that sums count nothing twice.",
            ["stage", "task"],
            registry=registry,
            buckets=BUCKETS_MS,
        )
        # Looking a child up by its labels takes longer than observing; do it once.
        self._shared = {stage: histogram.labels(stage, "shared") for stage in SHARED_STAGES}
        self._by_task = {
            (stage, task): histogram.labels(stage, task) for stage in TASK_STAGES for task in get_args(Task)
        }
        self.forward_passes = counter(
            "unihead_forward_passes", "Forward passes started for requests; those that warm a model up are not counted."
        )
        self.invalid_outputs = counter(
            "unihead_invalid_outputs",
            "Pictures about which the model said what cannot be true, as NaN or a class that there is not; answered "
            "with 500.",
        )
        self.images_in_flight = gauge(
            "unihead_images_in_flight",
            "Pictures that have come and whose answer is not finished; those that share a pass count each.",
        )
        results = counter(
            "unihead_cache_requests",
            "Pictures asked about, by where the pass came from. hit: from the cache. coalesced: another request's, "
            "under way. miss: an own one. bypass: an own one, because the request said no-cache.",
            ["result"],
        )
        self._results = {result: results.labels(result) for result in get_args(CacheResult)}
        self.cache_bytes = gauge("unihead_cache_bytes", "Bytes of the answers kept.")
        self.queue_images = gauge(
            "unihead_queue_images",
            "Pictures that wait for a worker; requests that share a pass count once, and so does what a worker has to "
            "unpack, read or pack for a request.",
        )
        self._queue_limit_images = gauge("unihead_queue_limit_images", "Pictures that may wait; the next is refused.")
        self.worker_images = gauge("unihead_worker_images", "Pictures that workers have in their hands.")
        self._worker_limit_images = gauge("unihead_worker_limit_images", "Pictures that workers take at once.")
        self.stuck_workers = gauge(
            "unihead_stuck_workers", "Workers that have had one picture in their hands for more than a second."
        )
        self.stuck_images = counter(
            "unihead_stuck_images", "Pictures that took so long that a spare worker took the place of theirs."
        )
        refusals = counter(
            "unihead_refused_requests",
            "Requests answered with 503 before a picture was decoded. queue_full: as many as may wait do. "
            "wait_too_long: the foretold wait outlasts the deadline. memory: the body does not fit into the budget. "
            "connections: too many are open.",
            ["reason"],
        )
        self._refusals = {reason: refusals.labels(reason) for reason in get_args(OverloadReason)}
        self._memory_bytes = gauge(
            "unihead_memory_bytes",
            "Bytes of the budget of memory that are taken. bodies: read, unpacked, kept until their picture is done. "
            "work: what pictures need while they are decoded, and answers while they are made. answers: not yet "
            "written to their clients.",
            ["use"],
        )
        self._memory_limit_bytes = gauge("unihead_memory_limit_bytes", "Bytes of the budget of memory.")
        self.memory_errors = counter(
            "unihead_memory_errors",
            "Pictures answered with 503 because the system had no memory left: the budget is too large for it.",
        )
        self._connections = gauge("unihead_connections", "Connections that are open.")
        self._connection_limit = gauge(
            "unihead_connection_limit", "Connections that may be open; the next displaces an idle one or is refused."
        )
        self.dropped_images = counter(
            "unihead_dropped_images",
            "Pictures taken and then dropped before their forward pass: all who asked were late or had disconnected.",
        )
        self.event_loop_lag = Histogram(
            "unihead_event_loop_lag_seconds",
            "How much later than asked the event loop woke a task that slept; what every request waits.",
            registry=registry,
            buckets=LAG_BUCKETS_S,
        )
        self._requests = counter(
            "unihead_http_requests",
            "Requests answered, by route template (`unmatched` where there is none), method, status, and the protocol "
            "in which they came. A call over gRPC is a POST of HTTP/2; its status is the one that the same answer has "
            "over HTTP.",
            ["route", "method", "status", "protocol"],
        )
        self.dropped_log_lines = counter(
            "unihead_dropped_log_lines",
            "Lines of the log that could not be written, or not soon enough; requests never wait for them.",
        )
        reloads = counter(
            "unihead_model_reloads",
            "Reloads asked for. swapped: the new file answers. unchanged: it is the old one. refused: the old stays.",
            ["outcome"],
        )
        self._reloads = {outcome: reloads.labels(outcome) for outcome in get_args(Outcome)}
        key_reloads = counter(
            "unihead_key_reloads",
            "Readings of the key file asked for. swapped: its keys are in force. unchanged: they were. refused: the "
            "old ones stay.",
            ["outcome"],
        )
        self._key_reloads = {outcome: key_reloads.labels(outcome) for outcome in get_args(Outcome)}
        self.unauthorized_requests = counter(
            "unihead_unauthorized_requests",
            "Requests answered with 401: they brought no key that is in force, or more than one.",
        )
        self._shadow_info = gauge(
            "unihead_shadow_info",
            "1 for the model in the shadow: it sees a share of the pictures and answers nobody.",
            ["version", "sha256"],
        )
        self._shadow_images = counter("unihead_shadow_images", "Pictures that both models have seen.")
        self._shadow_agreement = counter(
            "unihead_shadow_agreement",
            "Sum over the compared pictures of the agreement, 0..1 each. classify: the same first class. segment: mean "
            "IoU of the masks. detect: F1 of the boxes at an IoU of 0.5. Divide it by "
            "unihead_shadow_compared_images_total.",
            ["task"],
        )
        self._shadow_compared = counter(
            "unihead_shadow_compared_images",
            "Pictures in which a task was compared; after a reload the live model may serve others, or other classes.",
            ["task"],
        )
        self._shadow_forward_ms = counter(
            "unihead_shadow_forward_ms",
            "Milliseconds of the forward passes over these pictures, by model; shadow divided by live is the ratio.",
            ["model"],
        )
        self.shadow_dropped = counter(
            "unihead_shadow_dropped_images", "Pictures chosen for the shadow that came too fast for it."
        )
        self.shadow_failures = counter("unihead_shadow_failures", "Pictures over which the shadow model failed.")
        self._model_info = gauge(
            "unihead_model_info",
            "1 for the model that answers: its contract's name, version and preset, the file's SHA-256, the runtime.",
            ["name", "version", "preset", "sha256", "onnxruntime"],
        )

    def observe_shared(self, timings_ms: Mapping[Stage, float], *, batch_size: int) -> None:
        """Count the stages of one picture's pass, which may serve several tasks, and be that of several pictures."""
        for stage, milliseconds in timings_ms.items():
            self._shared[stage].observe(milliseconds)
        self.statistics.note_pass(timings_ms, batch_size=batch_size)

    def observe_task(self, task: Task, timings_ms: Mapping[Stage, float], result: CacheResult) -> None:
        """Count the stages that one route adds for one picture.

        Args:
            task: the route.
            timings_ms: of the request.
            result: where its pass came from; the share of an own one, queue included, has been counted with the pass.
        """
        own_pass = result in {"miss", "bypass"}
        for stage in TASK_STAGES:
            if stage in timings_ms and not (own_pass and stage == "queue"):
                self._by_task[stage, task].observe(timings_ms[stage])
        self.statistics.note_answer(timings_ms, is_hit=result == "hit")

    def show_limits(self, *, queue: int, workers: int) -> None:
        """Tell how many pictures may wait, and how many workers take them."""
        self._queue_limit_images.set(queue)
        self._worker_limit_images.set(workers)

    def count_cache_result(self, result: CacheResult) -> None:
        """Count where one request's pass came from."""
        self._results[result].inc()

    def show_memory(self, taken: Mapping[str, Callable[[], int]], limit: int) -> None:
        """Show how many bytes of the budget are taken by each use, and how many there are."""
        for use, count in taken.items():
            self._memory_bytes.labels(use).set_function(count)
        self._memory_limit_bytes.set(limit)

    def show_connections(self, count: Callable[[], int], limit: int) -> None:
        """Show how many connections are open, and may be."""
        self._connections.set_function(count)
        self._connection_limit.set(limit)

    def count_refusal(self, reason: OverloadReason) -> None:
        """Count one request that was not taken."""
        self._refusals[reason].inc()

    def count_request(self, *, route: str, method: str, status: int, protocol: Protocol) -> None:
        """Count one answer; `route` is a template, and unknown methods share a label, so that labels stay few."""
        self._requests.labels(route, method if method in METHODS else "other", str(status), protocol).inc()

    def count_reload(self, outcome: Outcome) -> None:
        """Count one reload."""
        self._reloads[outcome].inc()

    def count_key_reload(self, outcome: Outcome) -> None:
        """Count one reading of the key file."""
        self._key_reloads[outcome].inc()

    def show_shadow(self, *, version: str, sha256: str, tasks: Iterable[str]) -> None:
        """Name the model in the shadow, and begin its sums at 0, one for each task that it serves."""
        self._shadow_info.labels(version, sha256).set(1)
        for task in tasks:
            self._shadow_agreement.labels(task)
            self._shadow_compared.labels(task)
        for model in ("live", "shadow"):
            self._shadow_forward_ms.labels(model)

    def observe_shadow(
        self,
        *,
        top_1: float | None,
        mask_iou: float | None,
        box_f1: float | None,
        live_ms: float,
        shadow_ms: float,
    ) -> None:
        """Count one picture that both models have seen, and how much they agree, 0..1; None of what is not compared."""
        self._shadow_images.inc()
        for task, agreement in (("classify", top_1), ("segment", mask_iou), ("detect", box_f1)):
            if agreement is not None:
                self._shadow_agreement.labels(task).inc(agreement)
                self._shadow_compared.labels(task).inc()
        self._shadow_forward_ms.labels("live").inc(live_ms)
        self._shadow_forward_ms.labels("shadow").inc(shadow_ms)

    def show_model(self, *, name: str, version: str, preset: str, sha256: str) -> None:
        """Name the model that answers from now on; the one before disappears."""
        self._model_info.clear()
        self._model_info.labels(name, version, preset, sha256, onnxruntime.__version__).set(1)
