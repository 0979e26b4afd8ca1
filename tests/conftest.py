"""What every test may use; and what the tests of the documents found, told under the results."""

import gc
import os
from collections.abc import Generator, Iterator

import pytest

from service.commands.spawn import Spawned, spawn_service
from service.settings import Settings
from tests.grpc_service import GrpcSpawned, spawn_grpc


def pytest_configure() -> None:
    """Leave the caches and the terminal of whoever runs the tests alone, in the processes that tests start too."""
    os.environ.pop("COLUMNS", None)  # consoles that are made with it keep its width, whatever a test says
    os.environ["UNIHEAD_CACHE_DIR"] = "off"  # as training.files has it, which tests of the service do without


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"UNIHEAD_{name.upper()}", raising=False)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def served() -> Iterator[Spawned]:
    """A service with the embedded model and the defaults, for tests that only ask it."""
    with spawn_service(["--log-level", "warning"]) as service:
        yield service


@pytest.fixture(scope="session")
def served_grpc() -> Iterator[GrpcSpawned]:
    """Another one, with a gRPC port."""
    with spawn_grpc() as service:
        yield service


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what stays to the end: torch, other libraries and thousands of tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Put what the tests of the documents found under the results, so that nobody has to look for it."""
    reports = terminalreporter.getreports("passed")
    told = [item for report in reports if report.when == "call" for item in report.user_properties]
    run = [value for name, value in told if name == "run"]
    marked = [value for name, value in told if name == "not run"]
    if run or marked:
        terminalreporter.section("blocks of the documents")
        terminalreporter.write_line(f"{len(run)} run, {len(marked)} not:")
        for line in marked:
            terminalreporter.write_line(line)
