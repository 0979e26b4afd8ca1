"""An app with a gRPC port in the process of the test, and short words to ask it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from fastapi import FastAPI

from service.api.grpc.methods import SERVICE
from service.api.grpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from service.api.grpc.server import GrpcServer
from service.api.state import ServiceState
from tests.service.clients import PICTURE

INFER = f"/{SERVICE}/ModelInfer"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")


@dataclass(frozen=True)
class Port:
    """What tests ask.

    Attributes:
        app: that answers.
        server: its gRPC port.
        channel: to it.
    """

    app: FastAPI
    server: GrpcServer
    channel: grpc.aio.Channel

    @property
    def state(self) -> ServiceState:
        state: ServiceState = self.app.state.service
        return state

    def call(
        self, path: str, message: bytes, metadata: Sequence[tuple[str, str]] = (), timeout_s: float | None = 10
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        """Begin a call with the bytes of a message."""
        begin: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        return begin(message, metadata=metadata, timeout=timeout_s)

    async def infer(self, message: bytes | None = None, *metadata: tuple[str, str]) -> ModelInferResponse:
        return ModelInferResponse.FromString(await self.call(INFER, message or make_message(), metadata))

    def count(self, name: str, **labels: str) -> float:
        return self.state.metrics.registry.get_sample_value(name, labels) or 0.0

    def answered(self, status: int, path: str = INFER) -> float:
        labels = {"route": path, "method": "POST", "status": str(status), "protocol": "grpc"}
        return self.count("unihead_http_requests_total", **labels)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10)


@asynccontextmanager
async def open_port(app: FastAPI) -> AsyncIterator[Port]:
    """Open the port of an app that has been started."""
    server = GrpcServer(app.state.service)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Port(app, server, channel)
    finally:
        await server.drain(0, lambda: True)


def make_message(*pictures: bytes, outputs: Sequence[str] = (), model: str = "unihead", timeout_us: int = 0) -> bytes:
    """A request about files."""
    raw = b"".join(len(body).to_bytes(4, "little") + body for body in pictures or (PICTURE,))
    request = ModelInferRequest(model_name=model, id="7", raw_input_contents=[raw])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(pictures) or 1])
    for name in outputs:
        request.outputs.add(name=name)
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    return request.SerializeToString()
