"""A hundred new models while clients ask: nobody fails, nothing is mixed, memory comes back."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from service.cli import main
from service.commands.spawn import Spawned, spawn_service
from service.engine.contract import METADATA_KEY
from tests.benchmarks.load import memory_mb
from tests.outside import choose_size

MODELS = Path(__file__).parents[2] / "service" / "models"
BODIES = [path.read_bytes() for path in sorted((MODELS / "golden").glob("*.jpg"))]

pytestmark = [pytest.mark.slow]


def write_model(path: Path, version: str) -> None:
    """Write the shipped model under another version, which makes it another file."""
    proto = onnx.load(MODELS / "unihead.onnx")
    (entry,) = (entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps({**json.loads(entry.value), "version": version})
    temporary = path.with_suffix(".new")
    onnx.save(proto, temporary)
    temporary.replace(path)


def ask(service: Spawned, stop: threading.Event, answers: list[tuple[int, dict[str, Any]]], number: int) -> None:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    try:
        while not stop.is_set():
            picture = (number + len(answers)) % len(BODIES)
            connection.request("POST", "/predict", BODIES[picture], {"Cache-Control": "no-cache"})
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            answer = json.loads(body)
            del answer["timing_ms"]
            answers.append((picture, answer))
    finally:
        connection.close()


@pytest.mark.parametrize(
    "swaps", [6, pytest.param(choose_size(100, 40), marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
def test_swapping_the_model_under_load_fails_and_mixes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swaps: int
) -> None:
    model, pid_file = tmp_path / "model.onnx", tmp_path / "unihead.pid"
    write_model(model, "version-0")
    words = ["--model", str(model), "--pid-file", str(pid_file), "--log-level", "warning"]
    with spawn_service(words) as service:
        answers: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(4)]
        stop = threading.Event()
        threads = [threading.Thread(target=ask, args=(service, stop, answers[i], i)) for i in range(len(answers))]
        for thread in threads:
            thread.start()
        memory: list[float] = []
        for number in range(1, swaps + 1):
            write_model(model, f"version-{number}")
            with pytest.raises(SystemExit) as done:
                main(["reload", "--pid-file", str(pid_file), "--url", f"http://{service.host}:{service.port}"])
            assert done.value.code == 0, capsys.readouterr().err
            memory.append(memory_mb(service.pid))
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
    everything = [item for one in answers for item in one]
    assert len(everything) > swaps
    # All versions have the same weights, so a picture has one answer, whoever gave it.
    seen: dict[int, dict[str, Any]] = {}
    versions = set()
    for picture, answer in everything:
        versions.add(answer.pop("model")["version"])
        assert seen.setdefault(picture, answer) == answer
    assert versions <= {f"version-{number}" for number in range(swaps + 1)}
    assert len(versions) > swaps / 2
    if swaps >= 100:  # allocators need some rounds before they have what they need
        early, late = sorted(memory[10:30])[10], sorted(memory[-20:])[10]
        assert late <= 1.1 * early, f"{early:.0f} MB after 10 to 30 swaps, {late:.0f} MB at the end"
