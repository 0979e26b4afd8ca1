"""The whole way as a stranger walks it: train, export, check parity, serve, ask over HTTP; each step a process."""

import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.engine.engine import load_engine
from service.engine.postprocess import Answer
from service.pictures.imaging import decode_for, letterbox
from tests.outside import find_outside
from tests.training.make_sets import write_tiny_sets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "service" / "models" / "golden"


def run(module: str, *words: str | Path) -> str:
    """Run a command's `main` as its entry point does; gives what it printed, and fails with it."""
    command = [sys.executable, "-c", f"from {module} import main; main()", *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("UNIHEAD_")}
    environment["OMP_NUM_THREADS"] = "1"  # threads of a tiny network only wait for each other
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module", params=["synthetic", pytest.param("real", marks=pytest.mark.full)])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic copy of the mini sets; and those that UNIHEAD_DATA names, on which training takes minutes."""
    if request.param == "real":
        return find_outside("UNIHEAD_DATA", "data")
    return write_tiny_sets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `tiny` was trained and exported."""
    out = tmp_path_factory.mktemp("run")
    run("training.cli", "run", "--preset", "tiny", "--data", data, "--out", out)
    run("export.cli", "onnx", "--checkpoint", out / "checkpoint.pt", "--out", out / "unihead.onnx")
    return out


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "UNIHEAD_MODEL": str(folder / "unihead.onnx"), "UNIHEAD_PORT": str(port)}
    command = [sys.executable, "-c", "from service.cli import main; main()"]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(address)
            yield address
        finally:
            server.terminate()
            assert server.wait(timeout=20) == 0


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{address} was not ready within 30 s")


def test_the_run_leaves_a_report_with_pictures(folder: Path) -> None:
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "What was forgotten" in report
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', report)
    assert len(pictures) >= 3 * 2
    for encoded in pictures:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            assert min(picture.size) > 100


def test_the_file_says_what_the_checkpoint_says(folder: Path, data: Path) -> None:
    files = ("--checkpoint", folder / "checkpoint.pt", "--model", folder / "unihead.onnx")
    assert "parity holds" in run("export.cli", "parity", *files, "--data", data)


def test_the_service_answers_with_the_model_that_was_trained(folder: Path, url: str) -> None:
    engine = load_engine(folder / "unihead.onnx")
    contract = engine.contract
    assert httpx.get(f"{url}/info").json()["model"]["version"] == contract.version
    for path in sorted(GOLDEN.glob("*.jpg")):
        # At 64 px the service decodes these pictures at a quarter; whole ones would move boxes by a pixel.
        image, original = decode_for(contract.input_size, path.read_bytes())
        square, place = letterbox(image, contract.input_size, contract.letterbox.fill, original=original)
        (prediction,) = engine.predict([square])
        answer = httpx.post(f"{url}/predict?score_threshold=0", content=path.read_bytes()).json()

        assert answer["image"] == {"width": original[0], "height": original[1]}
        own = Answer(prediction, place, contract)
        wanted = own.detections(score_threshold=0, max_detections=100)
        assert len(answer["detections"]) == len(wanted)
        for got, one in zip(answer["detections"], wanted, strict=True):
            assert got["label"] == one.label
            assert got["box"] == pytest.approx(one.box, abs=0.02)
        (best,) = own.classes(top_k=1)
        assert answer["classes"][0]["label"] == best.label
        assert answer["classes"][0]["probability"] == pytest.approx(best.probability, abs=1e-5)
        with Image.open(io.BytesIO(base64.b64decode(answer["mask"]["data"]))) as mask:
            assert mask.size == original


def test_prometheus_can_read_the_milliseconds(url: str) -> None:
    body = (GOLDEN / "chelsea.jpg").read_bytes()
    before = count_passes(url)
    headers = {"Accept": "image/png", "Cache-Control": "no-cache"}
    assert httpx.post(f"{url}/segment", content=body, headers=headers).status_code == 200
    metrics = httpx.get(f"{url}/metrics").text
    assert count_passes(url) == before + 1
    assert 'unihead_ms_per_image_bucket{le="0.5",stage="forward",task="shared"}' in metrics
    assert 'unihead_ms_per_image_count{stage="total",task="segment"}' in metrics


def count_passes(url: str) -> float:
    found = re.search(r"^unihead_forward_passes_total (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])
