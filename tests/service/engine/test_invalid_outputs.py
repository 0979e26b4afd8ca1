from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.engine.engine import Engine
from service.errors import ContractError, ModelOutputInvalid
from service.pictures.imaging import UInt8Array
from service.scheduling.batches import PassRunner
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.timing import Stopwatch
from tests.service.clients import connect
from tests.service.fakes import BOXES, FOUND, LABELS, SCORES, SIZE, STRIDE, FakeSession, encode, make_contract

Outputs = dict[str, NDArray[Any]]
CELLS = SIZE // STRIDE


def put(name: str, place: tuple[int, ...], value: float) -> Callable[[Outputs], None]:
    def harm(outputs: Outputs) -> None:
        for index in range(len(outputs[name])):
            outputs[name][index, *place] = value

    return harm


def replace(name: str, *shape: int) -> Callable[[Outputs], None]:
    def harm(outputs: Outputs) -> None:
        outputs[name] = np.zeros((len(outputs[name]), *shape), dtype=outputs[name].dtype)

    return harm


# How an output goes wrong, and what is said about it.
FAULTS: dict[str, tuple[Callable[[Outputs], None], str]] = {
    "box that is no number": (put("boxes", (0, 2), np.nan), "boxes holds values that are no finite numbers"),
    "endless box": (put("boxes", (FOUND - 1, 0), -np.inf), "boxes holds values that are no finite numbers"),
    "score that is no number": (put("scores", (0,), np.nan), "scores holds values that are no finite numbers"),
    "endless score": (put("scores", (1,), np.inf), "scores holds values that are no finite numbers"),
    "probability that is no number": (put("class_probs", (2,), np.nan), "class_probs holds values that are no finite"),
    "more boxes than there are": (put("num_detections", (), len(BOXES) + 1), "num_detections is 5, not 0 to 4"),
    "fewer boxes than none": (put("num_detections", (), -1), "num_detections is -1, not 0 to 4"),
    "label beyond the last": (put("labels", (0,), 4), "labels holds 0 to 4, where there are 4 classes"),
    "label before the first": (put("labels", (2,), -1), "labels holds -1 to 1, where there are 4 classes"),
    "class of a cell beyond the last": (put("mask", (7, 7), 3), "mask holds 1 to 3, where there are 3 classes"),
    "fewer probabilities than classes": (
        replace("class_probs", 2),
        r"class_probs has the shape \(1, 2\), not \(1, 3\)",
    ),
    "smaller mask": (replace("mask", 4, 4), r"mask has the shape \(1, 4, 4\), not \(1, 8, 8\)"),
}


class BadSession(FakeSession):
    """Answers about bright pictures what cannot be true, about all others as it should."""

    def __init__(self, harm: Callable[[Outputs], None]) -> None:
        super().__init__()
        self._harm = harm

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        outputs: Outputs = {name: np.array(values) for name, values in super().run(images).items()}
        bad = images.mean(axis=(1, 2, 3)) > 200
        if bad.any():
            harmed = {name: values.copy() for name, values in outputs.items()}
            self._harm(harmed)
            if bad.all():
                return harmed
            for name, values in outputs.items():
                values[bad] = harmed[name][bad]
        return outputs


def make_square(colour: int) -> UInt8Array:
    return np.full((SIZE, SIZE, 3), colour, dtype=np.uint8)


BRIGHT, DARK = make_square(255), make_square(0)


@pytest.mark.parametrize("kind", FAULTS)
def test_what_cannot_be_true_is_refused_and_the_next_picture_is_answered(kind: str) -> None:
    harm, sentence = FAULTS[kind]
    engine = Engine(BadSession(harm), make_contract())
    with pytest.raises(ModelOutputInvalid, match=sentence):
        engine.predict([BRIGHT])
    (prediction,) = engine.predict([DARK])
    np.testing.assert_array_equal(prediction.boxes, BOXES[:FOUND])


def test_what_lies_behind_the_last_detection_does_not_matter() -> None:
    class Careless(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            outputs: Outputs = dict(super().run(images))
            outputs["boxes"][:, FOUND:], outputs["scores"][:, FOUND:], outputs["labels"][:, FOUND:] = np.nan, np.inf, 99
            return outputs

    (prediction,) = Engine(Careless(), make_contract()).predict([DARK])
    assert len(prediction.scores) == FOUND


def test_no_detections_and_as_many_as_fit_are_both_right() -> None:
    class Counting(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            return {**super().run(images), "num_detections": np.array([0, len(SCORES)])}

    none, all_of_them = Engine(Counting(), make_contract()).predict([DARK, DARK])
    assert len(none.labels) == 0
    np.testing.assert_array_equal(all_of_them.labels, LABELS)


def test_a_picture_in_a_batch_fails_no_other() -> None:
    engine = Engine(BadSession(FAULTS["box that is no number"][0]), make_contract())
    one, two, three = engine.predict_each([DARK, BRIGHT, DARK])
    assert isinstance(two, ModelOutputInvalid)
    assert not isinstance(one, ModelOutputInvalid)
    assert not isinstance(three, ModelOutputInvalid)


def test_the_pass_runner_counts_and_raises() -> None:
    metrics = Metrics(CollectorRegistry())
    engine = Engine(BadSession(FAULTS["box that is no number"][0]), make_contract())
    for most in (1, 2):
        runner = PassRunner(metrics, parallel=1, max_batch=most)
        with pytest.raises(ModelOutputInvalid):
            runner.run(engine, BRIGHT, Stopwatch(), alone=False)
        runner.run(engine, DARK, Stopwatch(), alone=False)
    assert metrics.registry.get_sample_value("unihead_invalid_outputs_total") == 2


def test_a_model_that_always_answers_what_cannot_be_true_is_refused_by_the_warm_up() -> None:
    class Lost(FakeSession):
        def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
            outputs = super().run(images)
            return {**outputs, "class_probs": np.full_like(outputs["class_probs"], np.nan)}

    with pytest.raises(ContractError, match="cannot answer a blank picture: class_probs holds values that are no"):
        Engine(Lost(), make_contract()).warm_up()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("path", ["/predict", "/segment", "/detect", "/classify", "/v2/models/unihead/infer"])
async def test_over_http_it_is_500_without_detail_and_is_not_kept(
    path: str, kind: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings, Engine(BadSession(FAULTS[kind][0]), make_contract(), sha256="c0ffee"))
    oip = path.startswith("/v2")
    headers = {"X-Request-ID": "mine", "Accept": "image/png"} | (
        {"Inference-Header-Content-Length": "0"} if oip else {}
    )
    async with app.router.lifespan_context(app), connect(app) as client:

        async def ask(square: UInt8Array) -> httpx.Response:
            return await client.post(path, content=encode(square), headers=headers)

        for _ in range(2):
            bad = await ask(BRIGHT)
            assert bad.status_code == 500
            if oip:
                assert set(bad.json()) == {"error"}
            else:
                assert bad.json()["code"] == "model_output_invalid"
            assert "boxes" not in bad.text
            assert (await ask(DARK)).status_code == 200
        scraped = (await client.get("/metrics")).text
    assert "unihead_invalid_outputs_total 2.0" in scraped
    assert "unihead_forward_passes_total 3.0" in scraped  # the bad one twice, the good one once
    assert 'status="500"} 2.0' in scraped
    record = next(record for record in caplog.records if record.levelname == "ERROR")
    assert "no valid answer" in record.getMessage()
    assert record.fields == {"request_id": "mine"}  # type: ignore[attr-defined]  # put there by `extra`
