"""KServe's own client, unchanged, asks a real service with the embedded model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from service.commands.spawn import Spawned
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import decode, letterbox
from service.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(Settings().model, threads=1)


@pytest.fixture
async def client() -> AsyncIterator[InferenceRESTClient]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    yield client
    await client.close()


def url_of(served: Spawned) -> str:
    return f"http://{served.host}:{served.port}"


async def infer(client: InferenceRESTClient, served: Spawned, request: InferRequest) -> InferResponse:
    answer = await client.infer(url_of(served), request, model_name="unihead", timeout=30)
    assert isinstance(answer, InferResponse)
    return answer


def outputs_of(answer: InferResponse) -> dict[str, np.ndarray]:
    return {output.name: output.as_numpy() for output in answer.outputs}


async def test_it_is_alive_and_ready(client: InferenceRESTClient, served: Spawned) -> None:
    assert await client.is_server_live(url_of(served))
    assert await client.is_server_ready(url_of(served))
    assert await client.is_model_ready(url_of(served), "unihead")


@pytest.mark.parametrize("binary", [True, False])
async def test_the_networks_input_gets_what_the_network_gives(
    client: InferenceRESTClient, served: Spawned, engine: Engine, binary: bool
) -> None:
    size, fill = engine.contract.input_size, engine.contract.letterbox.fill
    square, _ = letterbox(decode(CAT), size, fill)
    tensor = InferInput("images", [1, size, size, 3], "UINT8")
    tensor.set_data_from_numpy(square[None], binary_data=binary)
    outputs = outputs_of(await infer(client, served, InferRequest("unihead", [tensor])))
    (prediction,) = engine.predict([square])
    count = int(outputs["num_detections"][0])
    assert count == len(prediction.scores)
    np.testing.assert_allclose(outputs["boxes"][0, :count], prediction.boxes, atol=0.01)
    np.testing.assert_array_equal(outputs["mask"][0], prediction.mask)
    np.testing.assert_allclose(outputs["class_probs"][0], prediction.class_probs, atol=1e-5)


async def test_a_file_gets_the_outputs_that_were_named(client: InferenceRESTClient, served: Spawned) -> None:
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([CAT], dtype=np.object_), binary_data=True)
    wanted = [RequestedOutput("class_probs")]
    outputs = outputs_of(await infer(client, served, InferRequest("unihead", [tensor], request_outputs=wanted)))
    assert list(outputs) == ["class_probs"]
    assert outputs["class_probs"].sum() == pytest.approx(1, abs=1e-4)


async def test_errors_can_be_read(client: InferenceRESTClient, served: Spawned) -> None:
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"no picture"], dtype=np.object_), binary_data=True)
    with pytest.raises(httpx.HTTPStatusError, match="JPEG, PNG or WebP"):
        await infer(client, served, InferRequest("unihead", [tensor]))
