from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.engine.contract import MODEL_TASKS, ModelTask
from service.engine.engine import Engine
from service.errors import ContractError
from service.memory import MemoryBudget
from service.pictures.imaging import UInt8Array
from service.pictures.limits import PictureLimits
from service.rollout.shadow import Shadow, require_same_classes
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.clients import connect
from tests.service.fakes import FakeSession, encode, make_contract, make_picture

BODY = encode(make_picture())


class Other(FakeSession):
    """Names the last class where the live model would name another."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        outputs = dict(super().run(images))
        return {**outputs, "class_probs": outputs["class_probs"].max(axis=1, keepdims=True) - outputs["class_probs"]}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def build(
    metrics: Metrics,
    session: FakeSession,
    chosen: Iterator[float],
    *,
    percent: float = 5,
    memory: MemoryBudget | None = None,
) -> Shadow:
    live = Engine(FakeSession(), make_contract())
    return Shadow(
        Engine(session, make_contract(version="shadow")),
        metrics,
        memory=memory or MemoryBudget(2**30),
        live=lambda: live,
        percent=percent,
        limits=PictureLimits(max_pixels=10_000),
        choose=lambda: next(chosen),
    )


def count(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"unihead_shadow_{name}_total", labels) or 0.0


def test_a_share_of_the_pictures_is_compared(metrics: Metrics) -> None:
    session = FakeSession()
    shadow = build(metrics, session, iter([0.9, 0.049, 0.05, 0.0]))
    for _ in range(4):
        shadow.offer(BODY)
    shadow.stop()
    assert session.passes == 2.0 == count(metrics, "images")
    for task in ("classify", "segment", "detect"):
        assert count(metrics, "agreement", task=task) == 2.0
    assert count(metrics, "forward_ms", model="shadow") > 0 < count(metrics, "forward_ms", model="live")
    assert metrics.forward_passes._value.get() == 0  # of requests there were none


def test_disagreement_shows(metrics: Metrics) -> None:
    shadow = build(metrics, Other(), iter([0.0]))
    shadow.offer(BODY)
    shadow.stop()
    assert count(metrics, "images") == 1.0
    assert count(metrics, "agreement", task="classify") == 0.0
    assert count(metrics, "agreement", task="segment") == 1.0


def test_what_comes_too_fast_is_dropped_and_never_waited_for(metrics: Metrics) -> None:
    gate = threading.Event()

    class Slow(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            gate.wait(10)
            return super().run(images)

    shadow = build(metrics, Slow(), iter([0.0] * 30))
    for _ in range(30):
        shadow.offer(BODY)
    gate.set()
    shadow.stop()
    assert count(metrics, "dropped_images") + count(metrics, "images") == 30.0
    assert 8 <= count(metrics, "images") <= 10


def test_what_there_is_no_memory_for_is_dropped(metrics: Metrics) -> None:
    memory = MemoryBudget(4 * 2**20)
    shadow = build(metrics, FakeSession(), iter([0.0] * 3), memory=memory)
    full = memory.begin(3 * 2**20)
    assert full is not None
    shadow.offer(BODY)  # there is room for its bytes, and none to decode it
    while not count(metrics, "dropped_images"):
        pass
    others = memory.begin(2**20)
    assert others is not None
    shadow.offer(BODY)
    assert count(metrics, "dropped_images") == 2.0
    full.close()
    others.close()
    shadow.offer(BODY)
    shadow.stop()
    assert (count(metrics, "images"), count(metrics, "failures")) == (1.0, 0.0)
    assert memory.total() == 0


def test_a_failing_shadow_is_counted_and_goes_on(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    class Moody(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            outputs = super().run(images)
            if self.passes == 1:
                raise RuntimeError("no kernel")
            return outputs

    shadow = build(metrics, Moody(), iter([0.0, 0.0]))
    shadow.offer(BODY)
    shadow.offer(BODY)
    shadow.stop()
    assert (count(metrics, "failures"), count(metrics, "images")) == (1.0, 1.0)
    assert "the shadow model failed" in caplog.text


def test_other_classes_are_refused(metrics: Metrics) -> None:
    live, other = (
        Engine(FakeSession(), make_contract()),
        make_contract(segmentation_classes=("background", "dog", "cat")),
    )
    with pytest.raises(ContractError, match="has other segmentation classes"):
        Shadow(
            Engine(FakeSession(), other),
            metrics,
            memory=MemoryBudget(2**30),
            live=lambda: live,
            percent=5,
            limits=PictureLimits(),
        )


def test_a_shadow_with_other_tasks_is_refused() -> None:
    live, other = (Engine(FakeSession(), make_contract(tasks=tasks)) for tasks in (("detect",), ("detect", "classify")))
    with pytest.raises(ContractError, match="the shadow model serves detect, classify, the one that answers detect"):
        require_same_classes(live, other)


def test_a_shadow_is_compared_in_what_both_serve(metrics: Metrics, tasks: tuple[ModelTask, ...]) -> None:
    lives = [Engine(FakeSession(), make_contract(tasks=tasks))]
    shadow = Shadow(
        lives[0],
        metrics,
        memory=MemoryBudget(2**30),
        live=lambda: lives[-1],
        percent=100,
        limits=PictureLimits(),
    )
    lives.append(Engine(FakeSession(), make_contract(tasks=("detect",))))  # a reload
    shadow.offer(BODY)
    shadow.stop()
    sample = metrics.registry.get_sample_value
    assert sample("unihead_shadow_failures_total") == 0
    assert sample("unihead_shadow_images_total") == 1
    for task in MODEL_TASKS:
        wanted = None if task not in tasks else float(task == "detect")
        assert sample("unihead_shadow_agreement_total", {"task": task}) == wanted
        assert sample("unihead_shadow_compared_images_total", {"task": task}) == wanted


def test_after_a_reload_to_other_classes_only_what_still_has_the_same_is_compared(metrics: Metrics) -> None:
    before = Engine(FakeSession(), make_contract())
    lives = [before]
    shadow = Shadow(
        before,
        metrics,
        memory=MemoryBudget(2**30),
        live=lambda: lives[-1],
        percent=100,
        limits=PictureLimits(),
    )
    shadow.offer(BODY)
    while count(metrics, "images") < 1:
        shadow._thread.join(0.001)
    others = make_contract(
        segmentation_classes=before.contract.segmentation_classes[::-1],
        classification_classes=tuple(f"other {name}" for name in before.contract.classification_classes),
    )
    lives.append(Engine(FakeSession(), others))
    for _ in range(3):
        shadow.offer(BODY)
    shadow.stop()
    assert count(metrics, "images") == 4.0
    for task, compared in (("classify", 1.0), ("segment", 1.0), ("detect", 4.0)):
        assert count(metrics, "compared_images", task=task) == compared
        assert count(metrics, "agreement", task=task) == compared  # a ratio of 1, which does not sink


@pytest.mark.anyio
async def test_a_refused_shadow_leaves_no_thread_behind(
    tiny_model: Path, tmp_path: Path, write_tiny_model: Callable[..., Path]
) -> None:
    other = write_tiny_model(tmp_path / "other.onnx", make_contract(detection_classes=tuple("abcd")))
    app = create_app(Settings(model=tiny_model, shadow=other, threads=2))
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(ContractError, match="has other detection classes"):
        async with app.router.lifespan_context(app):
            pass
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if name.startswith(("picture", "cached", "shadow"))]


@pytest.mark.anyio
async def test_the_service_runs_a_shadow_beside_its_model(tiny_model: Path) -> None:
    app = create_app(Settings(model=tiny_model, shadow=tiny_model, shadow_percent=100))
    async with app.router.lifespan_context(app), connect(app) as client:
        for seed in range(5):
            response = await client.post("/predict", content=encode(make_picture(seed=seed)))
            assert response.status_code == 200
    assert count(app.state.service.metrics, "images") == 5.0
    assert count(app.state.service.metrics, "agreement", task="segment") == 5.0
