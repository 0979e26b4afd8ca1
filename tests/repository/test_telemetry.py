"""ONNX Runtime's official builds report to their maker by default; here they do not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def remembered(module: str, home: Path, **environment: str) -> list[str]:
    """Import a module in a process of its own; returns the files that ONNX Runtime leaves to know the machine again."""
    # Without the variables of CI, where it reports nothing of itself.
    subprocess.run(
        [sys.executable, "-B", "-c", f"import {module}"],
        cwd=ROOT,
        env={"HOME": str(home), "MPLCONFIGDIR": str(home / "matplotlib"), **environment},
        check=True,
    )
    return [path.name for path in home.rglob("*") if "onnxruntime" in str(path.relative_to(home)) and path.is_file()]


@pytest.mark.parametrize("module", ["service.app", "training.cli", "export.cli"])
def test_nothing_is_reported(module: str, tmp_path: Path) -> None:
    assert remembered(module, tmp_path) == []


def test_who_wants_to_report_may(tmp_path: Path) -> None:
    assert "deviceid" in remembered("service.app", tmp_path, ORT_DISABLE_TELEMETRY="0")
