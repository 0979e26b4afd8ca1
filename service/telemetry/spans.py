"""One request as OpenTelemetry spans, written from what its stopwatches have measured; `tracing` imports it on demand.

A server span covers the request, a span for each lap lies inside it. Only the forward pass is written when it is over,
by the worker thread: requests that share it, at once or from the cache, link to it. All others are written after the
answer has been sent. Attributes follow the semantic conventions for HTTP and RPC; nothing that a caller wrote is among
them, but for an X-Request-ID that is short and plain.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from service.machine import find_version
from service.telemetry.metrics import CacheResult
from service.telemetry.timing import Stopwatch

__all__ = ["PictureTrace", "RequestTrace", "SpanContext", "Tracing", "build_tracing"]

logger = logging.getLogger("unihead")

_PROTOCOL = "http/protobuf"
_STOP_S = 2.0


@dataclass(slots=True, eq=False)
class PictureTrace:
    """One picture of a traced request.

    Attributes:
        request: of which it is a part.
        watch: of the picture.
        span: in which its stages lie: the request's, or its own where there are several pictures.
        cache_result: where its pass came from, once that is known.
        origin: the pass that answered it, perhaps in the trace of another request.
    """

    request: RequestTrace
    watch: Stopwatch
    span: Span
    cache_result: CacheResult | None = None
    origin: SpanContext | None = None
    _own_pass: SpanContext | None = None

    def record_pass(self, *, model_version: str, batch_size: int) -> SpanContext:
        """In a worker thread, right after the lap `forward`: write the pass.

        Args:
            model_version: of the model that ran.
            batch_size: pictures that shared the pass.

        Returns:
            What others link to.
        """
        name, begin, end = self.watch.laps[-1]
        attributes: dict[str, str | int] = {"unihead.batch_size": batch_size, "unihead.model_version": model_version}
        self._own_pass = self.request.write(name, begin, end, inside=self.span, attributes=attributes)
        return self._own_pass

    def finish(self) -> None:
        """Write all stages that have been measured, but for the pass, which its worker writes."""
        for stage, begin, end in tuple(self.watch.laps):
            if stage != "forward":
                self.request.write(stage, begin, end, inside=self.span)
        if self.cache_result is not None:
            self.span.set_attribute("unihead.cache", self.cache_result)
        if self.origin is not None and self.origin is not self._own_pass:
            self.span.add_link(self.origin)


class RequestTrace:
    """One traced request, from its head to the end of its answer.

    Attributes:
        trace_id: of the trace, as W3C Trace Context writes it.
    """

    def __init__(self, tracer: Tracer, span: Span, *, started: float, started_ns: int) -> None:
        """Take a span that has begun.

        Args:
            tracer: writes the spans inside it.
            span: of the request.
            started: when it began, in seconds of the stopwatches.
            started_ns: the same moment, in nanoseconds since 1970.
        """
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self._tracer = tracer
        self._span = span
        self._started = started
        self._started_ns = started_ns
        self._pictures: Sequence[PictureTrace] = ()
        self._read_until = started

    def add_pictures(self, watches: Sequence[Stopwatch]) -> Sequence[PictureTrace]:
        """Begin the traces of the request's pictures, whose bytes have come; several get a span each."""
        self._read_until = watches[0].started
        spans = [self._span] if len(watches) == 1 else [self._begin_picture(*item) for item in enumerate(watches)]
        self._pictures = [PictureTrace(self, watch, span) for watch, span in zip(watches, spans, strict=True)]
        return self._pictures

    def write(
        self,
        name: str,
        begin: float,
        end: float,
        *,
        inside: Span,
        attributes: Mapping[str, str | int] | None = None,
    ) -> SpanContext:
        """Write a span that is over.

        Args:
            name: of the stage.
            begin: in seconds of the stopwatches.
            end: likewise.
            inside: its parent.
            attributes: what else is known about it.
        """
        parent = set_span_in_context(inside, Context())
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=self._to_ns(begin))
        span.end(self._to_ns(end))
        return span.get_span_context()

    def finish(self, attributes: Mapping[str, str | int], *, problem_code: str | None, error: str | None) -> None:
        """Write what has been measured, and end the request's span.

        Args:
            attributes: of the answer, in the words of its protocol's conventions.
            problem_code: of the answer, if it is a problem.
            error: what kind, if the service has failed.
        """
        end_ns = self._to_ns(time.perf_counter())
        if self._pictures:
            self.write("read", self._started, self._read_until, inside=self._span)
        for picture in self._pictures:
            picture.finish()
            if picture.span is not self._span:
                picture.span.end(end_ns)
        self._span.set_attributes(attributes)
        if problem_code is not None:
            self._span.set_attribute("unihead.problem_code", problem_code)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(end_ns)

    def _begin_picture(self, index: int, watch: Stopwatch) -> Span:
        return self._tracer.start_span(
            "picture",
            set_span_in_context(self._span, Context()),
            attributes={"unihead.picture_index": index},
            start_time=self._to_ns(watch.started),
        )

    def _to_ns(self, seconds: float) -> int:
        return self._started_ns + round((seconds - self._started) * 1e9)


class Tracing:
    """Begins traces, and hands them to a provider that exports them in a thread of its own."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("unihead", find_version("unihead"))

    def begin(
        self, name: str, attributes: Mapping[str, str], *, request_id: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> RequestTrace | None:
        """Begin the trace of a request, or go on with its caller's (W3C Trace Context); None if the sampler says no.

        Args:
            name: of its span.
            attributes: in the words of its protocol's conventions.
            request_id: as in the log.
            headers: of the request, names in lower case.
        """
        carrier: dict[str, list[str]] = {}
        for header, value in headers:
            carrier.setdefault(header.decode("latin-1"), []).append(value.decode("latin-1"))
        started, started_ns = time.perf_counter(), time.time_ns()
        span = self._tracer.start_span(
            name,
            propagate.extract(carrier, Context()),
            kind=SpanKind.SERVER,
            attributes={**attributes, "unihead.request_id": request_id},
            start_time=started_ns,
        )
        if not span.is_recording():
            return None
        return RequestTrace(self._tracer, span, started=started, started_ns=started_ns)

    def stop(self) -> None:
        """Send what has not been sent; after two seconds leave it, because nobody waits longer for a service to end."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_STOP_S)
        if last.is_alive():
            logger.warning("no collector took the last spans within %g s", _STOP_S)


def build_tracing() -> Tracing:
    """Build what OpenTelemetry's own variables ask for: endpoint, headers, service name, sampler, batches.

    Raises:
        ValueError: a variable has a value that cannot work.
    """
    _check(os.environ)
    resource = Resource.create({"service.name": "unihead", "service.version": find_version("unihead")})
    provider = TracerProvider(
        # The environment once more, because what is handed over wins otherwise.
        resource=resource.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _check(environment: Mapping[str, str]) -> None:
    """Refuse what would only be noticed by the traces that never come."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (environment.get(name) or _PROTOCOL) != _PROTOCOL:
            raise ValueError(f"{name} is {environment[name]!r}; the service speaks {_PROTOCOL}, mostly on port 4318")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        url = environment.get(name)
        if url and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
            raise ValueError(f"{name} is {url[:80]!r}; it must look like http://collector:4318")
