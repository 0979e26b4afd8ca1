"""Tests have walls too: libraries hold no tests, tests lend nothing, and those of the service need no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

LIBRARY = ROOT / "tests/attacks"
SERVICE = ROOT / "tests/service"
# What the service runs without; tests of it that build or read model files with onnx are left out where it is missing.
ABSENT = ("torch", "torchvision", "onnx", "onnxscript", "training", "export")
NEED_ONNX = {"test_onnx_file.py", "test_reload.py"}
COLLECT = f"""
import sys, pytest
sys.modules.update(dict.fromkeys({ABSENT}))  # makes importing them raise ModuleNotFoundError
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", sys.argv[1]]))
"""


def imported_modules(path: Path) -> set[str]:
    """Name the modules that a file imports from, at any depth."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_the_attacks_are_a_library_without_tests() -> None:
    assert len(list(LIBRARY.glob("*.py"))) > 10
    assert list(LIBRARY.rglob("test_*.py")) == []
    imported = set().union(*(imported_modules(path) for path in LIBRARY.glob("*.py") if path.stem != "__main__"))
    ours = {name for name in imported if name.startswith("tests.") and not name.startswith("tests.attacks")}
    assert ours == {"tests.grpc_service", "tests.service.fakes"}


# Tests of training hold each other's oracles.
@pytest.mark.parametrize("folder", ["attacks", "benchmarks", "docker", "hostile", "over_http", "page", "service"])
def test_nothing_is_imported_from_a_test_or_a_conftest(folder: str) -> None:
    paths = list((ROOT / "tests" / folder).rglob("*.py"))
    assert paths
    for path in paths:
        last = {name.rpartition(".")[2] for name in imported_modules(path) if name.startswith("tests.")}
        assert [name for name in last if name == "conftest" or name.startswith("test_")] == [], path


@pytest.mark.parametrize("folder", ["over_http", "page"])
def test_where_make_test_unit_does_not_look_are_no_unit_tests(folder: str) -> None:
    paths = list((ROOT / "tests" / folder).rglob("test_*.py"))
    assert paths
    for path in paths:
        assert re.search(r"^pytestmark = .*\bpytest\.mark\.(slow|full)\b", path.read_text(), re.MULTILINE), path


@pytest.mark.slow
def test_the_tests_of_the_service_are_collected_without_torch_and_onnx() -> None:
    command = [sys.executable, "-c", COLLECT, str(SERVICE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {Path(line.partition("::")[0]).name for line in done.stdout.splitlines() if "::" in line}
    assert {path.name for path in SERVICE.rglob("test_*.py")} - collected == NEED_ONNX
