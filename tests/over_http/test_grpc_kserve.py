"""KServe's own gRPC client, unchanged, asks a real service with the embedded model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.pictures.imaging import decode, letterbox
from service.settings import Settings
from tests.grpc_service import GrpcSpawned

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(Settings().model, threads=1)


@pytest.fixture
async def client(served_grpc: GrpcSpawned) -> AsyncIterator[InferenceGRPCClient]:
    client = InferenceGRPCClient(served_grpc.address, retries=0)
    yield client
    await client.close()


def file_of(body: bytes) -> InferInput:
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([body], dtype=np.object_), binary_data=True)
    return tensor


async def test_it_is_alive_and_ready(client: InferenceGRPCClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("unihead")
    assert not await client.is_model_ready("other")


@pytest.mark.parametrize("binary", [True, False])
async def test_the_networks_input_gets_what_the_network_gives(
    client: InferenceGRPCClient, engine: Engine, binary: bool
) -> None:
    """As raw bytes, and as numbers in the message."""
    size, fill = engine.contract.input_size, engine.contract.letterbox.fill
    square, _ = letterbox(decode(CAT), size, fill)
    tensor = InferInput("images", [1, size, size, 3], "UINT8", None if binary else square.ravel().tolist())
    if binary:
        tensor.set_data_from_numpy(square[None], binary_data=True)
    answer = await client.infer(InferRequest("unihead", [tensor]), timeout=30)
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    (prediction,) = engine.predict([square])
    count = int(outputs["num_detections"][0])
    assert count == len(prediction.scores)
    np.testing.assert_allclose(outputs["boxes"][0, :count], prediction.boxes, atol=0.01)
    np.testing.assert_array_equal(outputs["mask"][0], prediction.mask)
    np.testing.assert_allclose(outputs["class_probs"][0], prediction.class_probs, atol=1e-5)


async def test_a_file_gets_the_outputs_that_were_named(client: InferenceGRPCClient) -> None:
    request = InferRequest("unihead", [file_of(CAT)], request_outputs=[RequestedOutput("class_probs")])
    (output,) = (await client.infer(request, timeout=30)).outputs
    assert output.name == "class_probs"
    assert output.as_numpy().sum() == pytest.approx(1, abs=1e-4)


async def test_errors_can_be_read(client: InferenceGRPCClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="JPEG, PNG or WebP") as failure:
        await client.infer(InferRequest("unihead", [file_of(b"no picture")]))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_deadline_ends_a_call(client: InferenceGRPCClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await client.infer(
            InferRequest("unihead", [file_of(CAT)]), timeout=0.001, headers=(("cache-control", "no-cache"),)
        )
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
