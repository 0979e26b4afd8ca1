from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.state import ServiceState
from service.app import create_app
from service.engine.engine import Engine
from service.errors import ContractError
from service.rollout.loading import load_verified
from service.rollout.reload import Reload, Reloader
from service.settings import Settings
from tests.service.bad_models import BAD_AT_START, BAD_MODELS, rewrite, set_weight, write_model
from tests.service.clients import connect
from tests.service.fakes import encode, make_picture
from tests.service.harness import until

pytestmark = pytest.mark.anyio


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    began = time.time()
    done = await reload(app)
    assert (done.number, done.outcome, done.reason) == (1, "swapped", "")
    assert began <= done.started_at < done.finished_at
    assert await version_of(client, body) == "new"  # and not from the cache of the old one
    info = (await client.get("/info")).json()
    assert (info["model"]["version"], info["last_reload"]["outcome"]) == ("new", "swapped")
    assert info["last_reload"]["sha256"] == sha256_of(model)
    metrics = (await client.get("/metrics")).text
    assert 'unihead_model_reloads_total{outcome="swapped"} 1.0' in metrics
    assert 'version="new"} 1.0' in metrics
    assert 'version="old"' not in metrics


async def test_the_same_file_changes_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    body = encode(make_picture())
    await version_of(client, body)
    assert (await reload(app)).outcome == "unchanged"
    assert (await client.post("/classify", content=body)).headers["x-unihead-cache"] == "hit"


@pytest.mark.parametrize("kind", BAD_MODELS)
async def test_a_broken_file_is_refused_and_the_old_model_serves_on(
    app: FastAPI, client: httpx.AsyncClient, model: Path, kind: str
) -> None:
    harm, sentence = BAD_MODELS[kind]
    harm(model)
    done = await reload(app)
    assert done.outcome == "refused"
    assert sentence in done.reason
    assert await version_of(client, encode(make_picture())) == "old"
    assert (await client.get("/readyz")).status_code == 200
    assert 'unihead_model_reloads_total{outcome="refused"} 1.0' in (await client.get("/metrics")).text
    write_model(model, "mended")
    assert (await reload(app)).outcome == "swapped"


@pytest.mark.parametrize("kind", BAD_AT_START)
async def test_a_broken_file_stops_the_start(model: Path, kind: str) -> None:
    harm, sentence = BAD_MODELS[kind]
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
    rewrite(model, set_weight(1 / 3))
    app = create_app(Settings(model=model, golden="warn"))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert await version_of(client, encode(make_picture())) == "old"
        assert "answers otherwise than its file says" in caplog.text
        rewrite(model, set_weight(3e38))
        assert (await reload(app)).outcome == "refused"


async def test_those_who_ask_at_once_share_a_reload_and_those_who_come_later_the_next(
    app: FastAPI, client: httpx.AsyncClient, model: Path
) -> None:
    write_model(model, "new")
    reloader, read = app.state.service.reloader, list[Engine]()
    load = reloader.load

    def load_and_tell() -> Engine:
        read.append(load())
        return read[-1]

    reloader.load = load_and_tell
    first = [asyncio.ensure_future(reload(app)) for _ in range(100)]
    await until(lambda: len(read) == 1)
    write_model(model, "newer")
    later = [asyncio.ensure_future(reload(app)) for _ in range(100)]
    assert {done.number for done in await asyncio.gather(*first)} == {1}
    assert {(done.number, done.outcome) for done in await asyncio.gather(*later)} == {(2, "swapped")}
    assert await version_of(client, encode(make_picture())) == "newer"


async def test_what_is_never_read_to_its_end_is_given_up_and_holds_up_nobody() -> None:
    """As a disk of another machine that does not answer."""
    released, said = threading.Event(), iter(["slow", "good"])

    def load() -> str:
        word = next(said)
        if word == "slow":
            released.wait(30)
        return word

    in_force = ["old"]

    def swap(word: str) -> bool:
        in_force.append(word)
        return True

    reloader = Reloader(
        name="words",
        load=load,
        timeout_s=0.05,
        swap=swap,
        describe=lambda: in_force[-1],
        expected=ContractError,
        count=lambda outcome: None,  # noqa: ARG005 - nobody counts
    )
    first = await reloader.reload()
    assert (first.outcome, first.reason) == ("refused", "it could not be read within 0.05 s")
    assert (await reloader.reload()).outcome == "swapped"
    released.set()
    await asyncio.sleep(0.05)
    assert in_force == ["old", "good"]  # what came too late changes nothing
    await reloader.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "reload of words"]


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
    for number in range(10):
        version = "ba"[number % 2]
        write_model(model, version, classification_classes=names[version])
        assert (await reload(app)).outcome == "swapped"
    stop = True
    await asyncio.gather(*clients)
    assert served == {"a", "b"}
