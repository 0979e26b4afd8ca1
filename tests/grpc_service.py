"""A service with a gRPC port, and Triton's client of it."""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from google.protobuf import descriptor_pool

from service.commands.spawn import Spawned, spawn_service


@dataclass(frozen=True, slots=True)
class GrpcSpawned:
    """A running service.

    Attributes:
        http: its other port.
        address: of the gRPC port.
    """

    http: Spawned
    address: str


@contextlib.contextmanager
def spawn_grpc(*words: str) -> Iterator[GrpcSpawned]:
    """Run a service with a gRPC port until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with spawn_service(["--log-level", "warning", "--grpc-port", str(port), *words]) as service:
        yield GrpcSpawned(service, f"127.0.0.1:{port}")


def load_triton() -> ModuleType:
    """Triton's client. Its messages cannot be beside KServe's in one pool: both declare the protocol's names."""
    own, common = descriptor_pool.DescriptorPool(), descriptor_pool.Default
    descriptor_pool.Default = lambda: own
    try:
        return importlib.import_module("tritonclient.grpc")
    finally:
        descriptor_pool.Default = common
