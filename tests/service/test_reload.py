from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper

from service.app import create_app
from service.contract import METADATA_KEY
from service.engine import Engine
from service.errors import ContractError
from service.golden import answer_golden
from service.reload import Reload, load_verified
from service.settings import Settings
from service.state import ServiceState
from tests.service.conftest import connect
from tests.service.fakes import FakeSession, encode, make_contract, make_picture, write_tiny_model

pytestmark = pytest.mark.anyio

GOLDEN = answer_golden(Engine(FakeSession(), make_contract()))


def write_model(path: Path, version: str, **changes: Any) -> Path:  # noqa: ANN401 - fields of the contract
    """Write a good model beside its place and move it there, as people should."""
    temporary = path.with_suffix(".new")
    write_tiny_model(temporary, make_contract(**{"version": version, "golden": GOLDEN, **changes}))
    return temporary.replace(path)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewrite(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def add_external(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, dtype=np.float32), "far")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)


def change_weight(model: onnx.ModelProto) -> None:
    (sharpness,) = (tensor for tensor in model.graph.initializer if tensor.name == "sharpness")
    sharpness.CopyFrom(numpy_helper.from_array(np.array(1 / 3, dtype=np.float32), "sharpness"))


def lose_weight(model: onnx.ModelProto) -> None:
    (sharpness,) = (tensor for tensor in model.graph.initializer if tensor.name == "sharpness")
    sharpness.CopyFrom(numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "sharpness"))


def overdo_weight(model: onnx.ModelProto) -> None:
    """A blank picture is answered, any other is too much."""
    (sharpness,) = (tensor for tensor in model.graph.initializer if tensor.name == "sharpness")
    sharpness.CopyFrom(numpy_helper.from_array(np.array(3e38, dtype=np.float32), "sharpness"))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "not of ONNX alone"),
    "text": (lambda path: path.write_text("hello"), "is no ONNX model"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is no ONNX model"),
    "no contract": (lambda path: write_tiny_model(path, None), "in its metadata"),
    "another format of contract": (
        lambda path: rewrite(
            path,
            lambda model: helper.set_model_props(
                model, {METADATA_KEY: make_contract().to_json().replace('"format_version":1', '"format_version":9')}
            ),
        ),
        "contract format is 9",
    ),
    "outputs missing": (
        lambda path: write_tiny_model(path, make_contract(golden=GOLDEN), outputs=slice(0, 5)),
        "the contract lists",
    ),
    "another size than its contract says": (lambda path: write_model(path, "new", input_size=64), "has the shape"),
    "more classes than it has": (
        lambda path: write_model(path, "new", classification_classes=("red", "green", "blue", "grey")),
        "class_probs has the shape",
    ),
    "external data": (lambda path: rewrite(path, add_external), "1 tensors lie in other files"),
    "foreign operators": (
        lambda path: rewrite(path, lambda model: model.opset_import.append(helper.make_opsetid("com.evil", 1))),
        "com.evil",
    ),
    "unknown operator set": (
        lambda path: rewrite(path, lambda model: setattr(model.opset_import[0], "version", 999)),
        "ONNX Runtime cannot load it",
    ),
    "another weight": (lambda path: rewrite(path, change_weight), "answers otherwise than its file says"),
    "a weight that is no number": (lambda path: rewrite(path, lose_weight), "class_probs holds values that are no"),
    "a weight beyond measure": (lambda path: rewrite(path, overdo_weight), "class_probs holds values that are no"),
    "no golden answers": (lambda path: write_tiny_model(path, make_contract()), "carries no answers"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx", "old")


@pytest.fixture
async def app(model: Path) -> AsyncIterator[FastAPI]:
    app = create_app(Settings(model=model, threads=2))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app) as client:
        yield client


async def reload(app: FastAPI) -> Reload:
    state: ServiceState = app.state.service
    assert state.reloader is not None
    return await state.reloader.reload()


async def version_of(client: httpx.AsyncClient, body: bytes) -> str:
    response = await client.post("/classify", content=body)
    assert response.status_code == 200, response.text
    return str(response.json()["model"]["version"])


async def test_a_good_file_takes_over(app: FastAPI, client: httpx.AsyncClient, model: Path) -> None:
    body = encode(make_picture())
    assert await version_of(client, body) == "old"
    assert (await client.get("/info")).json()["last_reload"] is None
    write_model(model, "new")
    done = await reload(app)
    assert (done.number, done.outcome, done.reason) == (1, "swapped", "")
    assert done.sha256 == sha256_of(model)
    assert await version_of(client, body) == "new"  # and not from the cache of the old one
    info = (await client.get("/info")).json()
    assert (info["model"]["version"], info["last_reload"]["outcome"]) == ("new", "swapped")
    metrics = (await client.get("/metrics")).text
    assert 'unihead_model_reloads_total{outcome="swapped"} 1.0' in metrics
    assert 'version="new"} 1.0' in metrics
    assert 'version="old"' not in metrics


async def test_the_same_file_changes_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    body = encode(make_picture())
    await version_of(client, body)
    assert (await reload(app)).outcome == "unchanged"
    assert (await client.post("/classify", content=body)).headers["x-unihead-cache"] == "hit"


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_file_is_refused_and_the_old_model_serves_on(
    app: FastAPI, client: httpx.AsyncClient, model: Path, kind: str
) -> None:
    harm, sentence = BROKEN[kind]
    harm(model)
    done = await reload(app)
    assert done.outcome == "refused"
    assert sentence in done.reason
    assert await version_of(client, encode(make_picture())) == "old"
    assert (await client.get("/readyz")).status_code == 200
    assert 'unihead_model_reloads_total{outcome="refused"} 1.0' in (await client.get("/metrics")).text
    write_model(model, "mended")
    assert (await reload(app)).outcome == "swapped"


@pytest.mark.parametrize("kind", sorted(set(BROKEN) - {"no golden answers"}))
async def test_a_broken_file_stops_the_start(model: Path, kind: str) -> None:
    harm, sentence = BROKEN[kind]
    harm(model)
    app = create_app(Settings(model=model))
    with pytest.raises(ContractError) as caught:
        async with app.router.lifespan_context(app):
            pass
    assert str(caught.value).startswith(f"{model}: ")
    assert sentence in str(caught.value)


async def test_other_answers_than_the_file_says_may_be_tolerated_but_not_those_that_cannot_be_true(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(model, change_weight)
    app = create_app(Settings(model=model, golden="warn"))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert await version_of(client, encode(make_picture())) == "old"
        assert "answers otherwise than its file says" in caplog.text
        rewrite(model, overdo_weight)
        assert (await reload(app)).outcome == "refused"


async def test_another_file_than_the_pinned_one_is_refused(model: Path) -> None:
    pin = sha256_of(model)
    assert load_verified(model, Settings(), sha256=pin.upper()).sha256 == pin
    write_model(model, "new")
    with pytest.raises(ContractError, match="the setting model_sha256 wants another"):
        load_verified(model, Settings(), sha256=pin)
    app = create_app(Settings(model=model, model_sha256=pin))
    with pytest.raises(ContractError, match="the setting model_sha256 wants another"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_start_without_golden_answers_is_a_warning(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(model=tiny_model))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.get("/readyz")).status_code == 200
    assert "carries no answers about the golden pictures" in caplog.text


async def test_replacing_the_model_under_load_fails_no_request_and_mixes_no_answer(
    app: FastAPI, client: httpx.AsyncClient, model: Path
) -> None:
    # The two models name their classes differently, so that half an answer of each would show.
    names = {"a": ("red", "green", "blue"), "b": ("rot", "grün", "blau")}
    write_model(model, "a", classification_classes=names["a"])
    await reload(app)
    stop, served = False, set()

    async def ask(client_number: int) -> None:
        for i in itertools.count():
            if stop:
                return
            response = await client.post("/predict", content=encode(make_picture(seed=10 * client_number + i % 7)))
            assert response.status_code == 200, response.text
            answer = response.json()
            version = answer["model"]["version"]
            served.add(version)
            assert {item["label"] for item in answer["classes"]} == set(names[version])

    clients = [asyncio.create_task(ask(number)) for number in range(8)]
    for number in range(30):
        version = "ba"[number % 2]
        write_model(model, version, classification_classes=names[version])
        assert (await reload(app)).outcome == "swapped"
    stop = True
    await asyncio.gather(*clients)
    assert served == {"a", "b"}
