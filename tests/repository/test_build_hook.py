"""The code of the gRPC port: made by a build, never committed, the same everywhere."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.checkout import ROOT

FOLDER = ROOT / "service" / "api" / "grpc"
MADE = ("open_inference_pb2.py", "open_inference_pb2.pyi")


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class App:
    """What a hook tells."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, sentence: str) -> None:
        self.warnings.append(sentence)


def build(root: Path) -> tuple[App, dict[str, Any]]:
    app, data = App(), dict[str, Any](artifacts=[])
    hook = load_hook().ProtocolBuildHook(str(root), {}, None, None, str(root), "wheel", app)
    hook.initialize("standard", data)
    return app, data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "service" / "api" / "grpc"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "open_inference.proto", folder)
    return tmp_path


def test_the_module_that_is_installed_is_made_of_the_protocols_text(root: Path) -> None:
    app, data = build(root)
    assert app.warnings == []
    assert data["artifacts"] == [f"/service/api/grpc/{name}" for name in MADE]
    made = (root / "service/api/grpc" / MADE[0]).read_bytes()
    assert made == (FOLDER / MADE[0]).read_bytes(), "install unihead again: the protocol's text has changed"


def test_without_grpcio_tools_what_is_there_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc_tools", None)
    (sentence,) = build(root)[0].warnings
    assert "grpc_tools is not installed" in sentence
    assert "will not work" in sentence
    module = root / "service/api/grpc" / MADE[0]
    module.write_text("made before")
    (sentence,) = build(root)[0].warnings
    assert "stays" in sentence
    assert module.read_text() == "made before"


def test_a_text_that_is_none_stops_the_build(root: Path) -> None:
    (root / "service/api/grpc/open_inference.proto").write_text("message {")
    with pytest.raises(RuntimeError, match=r"open_inference\.proto"):
        build(root)


def test_nothing_that_is_made_is_committed() -> None:
    known = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "*_pb2*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert known.stdout == ""
