from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry.metrics import BUCKETS_MS, Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_milliseconds_are_observed_by_stage_and_task(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe_shared({"decode": 1.5, "forward": 21.0}, batch_size=1)
    metrics.observe_task("detect", {"queue": 3.0, "forward": 21.0, "postprocess": 0.2, "total": 25.0}, "miss")
    metrics.observe_task("segment", {"queue": 9.0, "total": 10.0}, "coalesced")
    name = "unihead_ms_per_image_sum"
    assert registry.get_sample_value(name, {"stage": "forward", "task": "shared"}) == 21.0
    assert registry.get_sample_value(name, {"stage": "total", "task": "detect"}) == 25.0
    assert registry.get_sample_value(name, {"stage": "total", "task": "predict"}) == 0.0
    assert registry.get_sample_value(name, {"stage": "forward", "task": "detect"}) is None
    # Who waited for the pass of another request counts that wait; the wait for an own pass was counted with the pass.
    assert registry.get_sample_value(name, {"stage": "queue", "task": "segment"}) == 9.0
    assert registry.get_sample_value(name, {"stage": "queue", "task": "detect"}) == 0.0


def test_buckets_are_milliseconds_from_a_half_to_ten_thousand(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.observe_shared({"decode": 0.5}, batch_size=1)
    labels = {"stage": "decode", "task": "shared"}
    assert registry.get_sample_value("unihead_ms_per_image_bucket", {**labels, "le": "0.5"}) == 1.0
    assert list(BUCKETS_MS) == sorted(BUCKETS_MS)
    assert (BUCKETS_MS[0], BUCKETS_MS[-1]) == (0.5, 10_000)


def test_every_stage_is_there_before_the_first_picture(metrics: Metrics, registry: CollectorRegistry) -> None:
    assert metrics.registry is registry
    text = generate_latest(registry).decode()
    for stage in ("decode", "preprocess", "queue", "forward"):
        assert f'unihead_ms_per_image_count{{stage="{stage}",task="shared"}} 0.0' in text
    for task in ("segment", "detect", "classify", "predict"):
        for stage in ("queue", "postprocess", "encode", "other", "total"):
            assert f'unihead_ms_per_image_count{{stage="{stage}",task="{task}"}} 0.0' in text
    assert "unihead_forward_passes_total 0.0" in text
    assert "unihead_images_in_flight 0.0" in text
    for result in ("hit", "miss", "coalesced", "bypass"):
        assert f'unihead_cache_requests_total{{result="{result}"}} 0.0' in text
    for reason in ("queue_full", "wait_too_long"):
        assert f'unihead_refused_requests_total{{reason="{reason}"}} 0.0' in text


def test_unknown_methods_share_a_label(metrics: Metrics, registry: CollectorRegistry) -> None:
    for method in ("BREW", "X" * 50, "GET"):
        metrics.count_request(route="/info", method=method, status=405, protocol="http")
    labels = {"route": "/info", "status": "405", "protocol": "http"}
    assert registry.get_sample_value("unihead_http_requests_total", {**labels, "method": "other"}) == 2.0
    assert registry.get_sample_value("unihead_http_requests_total", {**labels, "method": "GET"}) == 1.0


def test_a_new_model_replaces_the_one_before(metrics: Metrics, registry: CollectorRegistry) -> None:
    for version in ("old", "new"):
        metrics.show_model(name="unihead", version=version, preset="tiny", sha256="ab")
    text = generate_latest(registry).decode()
    assert 'version="new"' in text
    assert 'version="old"' not in text


def test_two_apps_in_one_process_do_not_mix(metrics: Metrics, registry: CollectorRegistry) -> None:
    Metrics(CollectorRegistry()).forward_passes.inc()
    metrics.forward_passes.inc(2)
    assert registry.get_sample_value("unihead_forward_passes_total") == 2.0
