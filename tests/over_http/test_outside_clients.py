"""Stock clients, unchanged, and one that a generator makes; their environment is their own, from `make test-all`.

Beside the suite they would break it: `deepstack-python` and `codeproject-ai-api` install a package `tests`, and
`openapi-python-client` wants an older typer than training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.commands.spawn import Spawned
from service.engine.golden import GOLDEN_PICTURES

pytestmark = pytest.mark.full

CHELSEA = GOLDEN_PICTURES / "chelsea.jpg"
CLIENTS = Path(f"{sys.prefix}-clients/bin/python")
# The generator knows one type of bytes.
CONFIG = {
    "content_type_overrides": {f"image/{kind}": "application/octet-stream" for kind in ("jpeg", "png", "webp")},
    "post_hooks": [],
}
USE = """
import json, sys
from pathlib import Path
from generated import Client
from generated.api.pictures import detect, predict
from generated.api.deep_stack_and_code_project_ai import deepstack_custom
from generated.models import DeepstackCustomBody
from generated.types import File

picture = Path(sys.argv[2])
def open_picture():
    return File(payload=picture.open("rb"), file_name="a.jpg")

with Client(base_url=sys.argv[1]) as client:
    found = detect.sync(client=client, body=open_picture())
    everything = predict.sync(client=client, body=open_picture(), tasks="classify")
    form = DeepstackCustomBody(image=open_picture(), min_confidence=0.3)
    named = deepstack_custom.sync("general", client=client, body=form)
print(json.dumps([found.detections[0].label, everything.classes[0].label, named.predictions[0].label]))
"""


def run(*command: str | Path, folder: Path) -> str:
    if not CLIENTS.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CLIENTS} is missing; `make test-all` makes its environment")
        pytest.skip(f"{CLIENTS} is missing; `make test-all` makes its environment")
    done = subprocess.run([CLIENTS, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_clients_of_deepstack_and_codeproject_ai_find_a_cat(served: Spawned, tmp_path: Path) -> None:
    script = Path(__file__).with_name("outside_clients.py")
    said = json.loads(run(script, served.host, str(served.port), CHELSEA, folder=tmp_path))
    scene = scene_of(served)
    box = httpx.post(f"{served.url}/detect", content=CHELSEA.read_bytes()).json()["detections"][0]["box"]
    assert said["deepstack-python"] == [["cat"], 20, scene]
    assert said["codeproject-ai-api"] == [["cat"]]
    assert said["deepstack-sdk"] == [["cat"], 20, scene]
    assert said["box"] == [round(side) for side in box]
    assert "error 404" in said["refused"]


def test_a_client_is_generated_with_every_operation_and_works(served: Spawned, tmp_path: Path) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    words = ["--path", "openapi.json", "--config", "config.json", "--meta", "none", "--output-path", "generated"]
    said = run("-m", "openapi_python_client", "generate", "--fail-on-warning", *words, folder=tmp_path)
    assert "WARNING" not in said
    operations = {one["operationId"] for path in document["paths"].values() for one in path.values()}
    written = {path.stem for path in (tmp_path / "generated" / "api").glob("*/*.py")} - {"__init__"}
    assert written == operations
    (tmp_path / "use.py").write_text(USE)
    assert json.loads(run("use.py", served.url, CHELSEA, folder=tmp_path)) == ["cat", scene_of(served), "cat"]


def scene_of(served: Spawned) -> str:
    found: str = httpx.post(f"{served.url}/classify", content=CHELSEA.read_bytes()).json()["classes"][0]["label"]
    return found
