"""What Prometheus reads: milliseconds per image by stage, forward passes, requests, and which model answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.timing import SHARED_STAGES, TASK_STAGES, Stage

Task: TypeAlias = Literal["segment", "detect", "classify", "predict"]

TASKS: tuple[Task, ...] = ("segment", "detect", "classify", "predict")

# Close together where a small model on a CPU answers (2 to 100 ms), then wide up to the patience of a client.
BUCKETS_MS = (0.5, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10000)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The service's metrics in one registry that is handed in, so that two apps in one process never mix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        histogram = Histogram(
            "unihead_ms_per_image",
            "Milliseconds that one picture took, by stage. decode: bytes to upright RGB. preprocess: letterbox. "
            "queue: waiting for a decoding thread and for the forward pass. forward: the model. postprocess: boxes, "
            "classes and mask of the original picture. encode: PNG and JSON. total: from the body's last byte to the "
            "finished answer, the client's network excluded. task is the route; stages that serve several tasks at "
            "once say `shared`, so that sums count nothing twice.",
            ["stage", "task"],
            registry=registry,
            buckets=BUCKETS_MS,
        )
        # Looking a child up by its labels takes longer than observing; do it once.
        self._shared = {stage: histogram.labels(stage, "shared") for stage in SHARED_STAGES}
        self._by_task = {(stage, task): histogram.labels(stage, task) for stage in TASK_STAGES for task in TASKS}
        self.forward_passes = Counter(
            "unihead_forward_passes",
            "Forward passes started for requests; those that warm a model up are not counted.",
            registry=registry,
        )
        self.images_in_flight = Gauge(
            "unihead_images_in_flight",
            "Pictures whose bytes have come and whose answer is not finished.",
            registry=registry,
        )
        self._requests = Counter(
            "unihead_http_requests",
            "HTTP requests answered, by route template (`unmatched` where there is none), method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._model_info = Gauge(
            "unihead_model_info",
            "1 for the model that answers: its contract's name, version and preset, the file's SHA-256, the runtime.",
            ["name", "version", "preset", "sha256", "onnxruntime"],
            registry=registry,
        )

    def observe_shared(self, timings_ms: Mapping[Stage, float]) -> None:
        """Count the stages of one pass that may serve several tasks."""
        for stage, milliseconds in timings_ms.items():
            self._shared[stage].observe(milliseconds)

    def observe_task(self, task: Task, timings_ms: Mapping[Stage, float]) -> None:
        """Count the stages that one route adds for one picture."""
        for stage, milliseconds in timings_ms.items():
            self._by_task[stage, task].observe(milliseconds)

    def count_request(self, *, route: str, method: str, status: int) -> None:
        """Count one answer; `route` is a template, and unknown methods share a label, so that labels stay few."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()

    def show_model(self, *, name: str, version: str, preset: str, sha256: str, onnxruntime: str) -> None:
        """Name the model that answers from now on; the one before disappears."""
        self._model_info.clear()
        self._model_info.labels(name, version, preset, sha256, onnxruntime).set(1)
