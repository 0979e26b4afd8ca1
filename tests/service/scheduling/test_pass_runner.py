from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.pictures.imaging import UInt8Array
from service.scheduling.batches import PassRunner
from service.telemetry.metrics import Metrics
from service.telemetry.timing import Stopwatch
from tests.service.fakes import FakeSession, make_contract


def test_the_runner_shares_a_pass_between_those_who_come_together() -> None:
    session, metrics = FakeSession(), Metrics(CollectorRegistry())
    engine = Engine(session, make_contract())
    runner = PassRunner(metrics, parallel=1, max_batch=4, max_delay_ms=10_000)
    squares = [np.full((32, 32, 3), 20 * i, dtype=np.uint8) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(runner.run, engine, square, Stopwatch(), alone=False) for square in squares]
        found = [future.result(timeout=10) for future in futures]
    for square, (prediction, shared_by) in zip(squares, found, strict=True):
        np.testing.assert_array_equal(prediction.class_probs, engine.predict([square])[0].class_probs)
        assert shared_by == 4
    assert metrics.registry.get_sample_value("unihead_forward_passes_total") == 2.0


def test_a_batch_leaves_after_its_delay_and_never_mixes_models() -> None:
    metrics = Metrics(CollectorRegistry())
    old, new = Engine(FakeSession(), make_contract()), Engine(FakeSession(), make_contract())
    runner = PassRunner(metrics, parallel=2, max_batch=4, max_delay_ms=30)
    square = np.zeros((32, 32, 3), dtype=np.uint8)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(runner.run, engine, square, Stopwatch(), alone=False) for engine in (old, new)]:
            assert future.result(timeout=10)[1] == 1
    assert metrics.registry.get_sample_value("unihead_forward_passes_total") == 2.0


def test_a_broken_pass_is_told_to_the_whole_batch() -> None:
    class Dead(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            raise RuntimeError(f"no kernel for {images.shape}")

    engine, square = Engine(Dead(), make_contract()), np.zeros((32, 32, 3), dtype=np.uint8)
    runner = PassRunner(Metrics(CollectorRegistry()), parallel=1, max_batch=2, max_delay_ms=10_000)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(runner.run, engine, square, Stopwatch(), alone=False) for _ in range(2)]
        for future in futures:
            with pytest.raises(RuntimeError, match="no kernel"):
                future.result(timeout=10)
