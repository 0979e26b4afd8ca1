"""`unihead-serve bench`: how fast this model is on this machine, part by part, without and with HTTP."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.answers.finish import Content, Wanted, finish_json
from service.answers.schemas import PictureResponse, PredictResponse
from service.commands.endpoint import (
    EndpointError,
    add_key_option,
    check_url,
    connect,
    explain_unauthorized,
    make_key_headers,
)
from service.commands.files import find_pictures
from service.commands.local import run_pass
from service.commands.spawn import spawn_service
from service.engine.contract import ModelTask
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES
from service.machine import keep_freed_memory
from service.rollout.loading import load_verified
from service.settings import Settings, read_settings
from service.telemetry.timing import Stage, Stopwatch

_WARM_UP = 10
_MOST_SECONDS = 3600
_STAGES: tuple[Stage, ...] = ("decode", "preprocess", "forward", "postprocess", "encode")


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        UniheadError: a setting is wrong, the model cannot be used, or no service answers.
    """
    options = _parse(words)
    settings = read_settings(model=options.model, threads=options.threads)
    bodies = [
        path.read_bytes() for path in find_pictures([options.pictures], recursive=False).pictures if path.is_file()
    ]
    if not bodies:
        print(f"{options.pictures} has no JPEG, PNG or WebP picture", file=sys.stderr)
        return 2
    keep_freed_memory()
    report: Callable[[str], None] = print if not options.json else lambda _: None
    result: dict[str, Any] = {"pictures": len(bodies)}
    if options.url:
        result["http"] = _report_http(options.url, bodies, options, report)
    else:
        result |= _report_pipeline(settings, bodies, options, report)
        words = ["--model", str(settings.model), "--threads", str(settings.cpu_threads), "--log-level", "error"]
        with spawn_service(words) as service:
            result["http"] = _report_http(service.url, bodies, options, report)
    if options.json:
        print(json.dumps(result))
    return 0


def _report_pipeline(
    settings: Settings, bodies: Sequence[bytes], options: argparse.Namespace, report: Callable[[str], None]
) -> dict[str, Any]:
    """Measure and tell what there is without HTTP."""
    engine = load_verified(settings.model, settings)
    result: dict[str, Any] = {
        "model": engine.contract.version,
        "input_size": engine.contract.input_size,
        "cpus": settings.cpu_threads,
    }
    report(", ".join(f"{name} {value}" for name, value in {**result, "pictures": len(bodies)}.items()))
    result["alone_ms"] = measure_alone(engine, bodies, seconds=options.seconds)
    report("\none picture at a time, without HTTP: median milliseconds")
    report("  " + "  ".join(f"{stage} {ms:.2f}" for stage, ms in result["alone_ms"].items()))
    result["bare"] = measure_bare(engine, bodies, workers=settings.cpu_threads, seconds=options.seconds)
    report("\nall CPUs, without HTTP: the limit")
    report(f"  {result['bare']['per_second']:.1f} pictures/s, {result['bare']['cpu_ms']:.2f} CPU-ms each")
    return result


def _report_http(
    url: str, bodies: Sequence[bytes], options: argparse.Namespace, report: Callable[[str], None]
) -> list[dict[str, float]]:
    """Measure and tell what clients of a service see."""
    where = f"of {options.url}" if options.url else "over HTTP, the client on the same machine"
    report(f"\nPOST /predict {where}, every picture an own pass")
    report("  at once  pictures/s   p50 ms   p95 ms   p99 ms  failed")
    rows = []
    for concurrency in options.concurrency:
        row = measure_http(url, bodies, concurrency=concurrency, seconds=options.seconds, key=make_key_headers(options))
        rows.append(row)
        report(
            f"  {concurrency:7d}  {row['per_second']:10.1f}  {row['p50_ms']:7.1f}  {row['p95_ms']:7.1f}"
            f"  {row['p99_ms']:7.1f}  {row['failed']:6d}"
        )
    return rows


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("unihead-serve bench", description=__doc__)
    defaults = read_settings()
    parser.add_argument("--model", type=Path, default=defaults.model, help="ONNX file (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=defaults.threads, help="CPUs to use; 0: all (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=Path, default=GOLDEN_PICTURES, help="folder (default: the shipped four)")
    parser.add_argument("--seconds", type=_seconds, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--concurrency",
        type=_numbers,
        default="1,8,32",
        help="requests at once, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--url", type=_address, help="ask a service that runs already, http://HOST:PORT, and measure nothing else"
    )
    add_key_option(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    return parser.parse_args(words)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: a measurement takes more than 0 s, and {_MOST_SECONDS} at most")
    return seconds


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of requests at once is 1 or more")
    return numbers


def _address(text: str) -> str:
    if urlsplit(check_url(text)).path not in {"", "/"}:
        raise argparse.ArgumentTypeError(f"{text!r}; what is measured is its /predict, so leave the path out")
    return text


def run_pipeline(
    engine: Engine,
    body: bytes,
    *,
    alone: bool = False,
    tasks: tuple[ModelTask, ...] | None = None,
    shape: type[PictureResponse] = PredictResponse,
) -> tuple[Content, Stopwatch]:
    """Take one picture from bytes to JSON, as the service does, with all that the model serves or some tasks of it.

    Returns:
        The answer and its stages.
    """
    watch = Stopwatch()
    answer = run_pass(engine, body, watch, alone=alone)
    return finish_json(answer, watch, wanted=Wanted(tasks), shape=shape), watch


def measure_alone(engine: Engine, bodies: Sequence[bytes], *, seconds: float) -> dict[str, float]:
    """Median milliseconds of each stage, and of all together, of one picture that has the machine for itself."""
    laps: dict[str, list[float]] = {stage: [] for stage in (*_STAGES, "total")}

    def step(body: bytes) -> None:
        _, watch = run_pipeline(engine, body, alone=True)
        laps["total"].append(watch.elapsed_ms())
        for stage in _STAGES:
            laps[stage].append(watch.timings_ms[stage])

    _repeat(step, bodies, seconds)
    return {name: statistics.median(values[_WARM_UP:] or values) for name, values in laps.items()}


def measure_bare(engine: Engine, bodies: Sequence[bytes], *, workers: int, seconds: float) -> dict[str, float]:
    """Pictures a second and CPU milliseconds a picture with `workers` threads that do nothing else."""
    before, started = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        counts = list(
            pool.map(lambda _: _repeat(lambda body: run_pipeline(engine, body), bodies, seconds), range(workers))
        )
    took, cpu = time.perf_counter() - started, time.process_time() - before
    return {"per_second": sum(counts) / took, "cpu_ms": cpu / sum(counts) * 1000}


def measure_http(
    url: str, bodies: Sequence[bytes], *, concurrency: int, seconds: float, key: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Pictures a second, and percentiles of what a client waits, with `concurrency` connections that never pause.

    Raises:
        EndpointError: the service does not answer, or wants another key than the headers `key` bring.
    """
    times_ms: list[float] = []
    failures: list[int] = []  # appended to by all threads, as the times are
    headers = {"Content-Type": "application/octet-stream", "Cache-Control": "no-cache", **(key or {})}

    def ask(_: int) -> None:
        def step(body: bytes) -> None:
            started = time.perf_counter()
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status == http.client.UNAUTHORIZED:
                raise EndpointError(explain_unauthorized(url))
            if response.status == http.client.OK:
                times_ms.append((time.perf_counter() - started) * 1000)
            else:
                failures.append(response.status)

        with connect(url, 60) as connection:
            _repeat(step, bodies, seconds)

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(ask, range(concurrency)))
    took = time.perf_counter() - started
    ordered = sorted(times_ms) or [float("nan")]
    percentiles = {f"p{p}_ms": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (50, 95, 99)}
    return {"concurrency": concurrency, "per_second": len(times_ms) / took, **percentiles, "failed": len(failures)}


def _repeat(step: Callable[[bytes], object], bodies: Sequence[bytes], seconds: float) -> int:
    """Do `step` with one body after another until the time is over; returns how often."""
    stop = time.perf_counter() + seconds
    for count, body in enumerate(itertools.cycle(bodies)):
        if time.perf_counter() >= stop:
            return count
        step(body)
    raise AssertionError("a cycle does not end")
