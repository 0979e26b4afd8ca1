from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.commands.spawn import Spawned, spawn_service


@pytest.fixture(scope="session")
def service() -> Iterator[Spawned]:
    """A service that waits for nobody long."""
    words = ["--header-timeout-s", "1", "--body-timeout-s", "2", "--write-timeout-s", "2", "--log-level", "error"]
    with spawn_service(words) as impatient:
        yield impatient


@pytest.fixture(scope="session")
def narrow() -> Iterator[Spawned]:
    """A service that takes few connections, and little memory for bodies."""
    words = ["--max-connections", "25", "--header-timeout-s", "30", "--body-timeout-s", "5", "--log-level", "error"]
    with spawn_service([*words, "--memory-bytes", "8000000", "--max-body-bytes", "2000000"]) as spawned:
        yield spawned
