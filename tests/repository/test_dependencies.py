"""What we install has no version with a known hole, and reads no data that runs as code."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.docker.locks import BUILD_LOCK, ROOT, TRACING_LOCK, read_lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]
# | `pillow` | 13.0.0 | why |
FLOOR = re.compile(r"^\| `([\w.-]+)` \| ([\d.]+) \| .*\w.* \|$", re.MULTILINE)
SECTION = (ROOT / "docs/reliability.md").read_text(encoding="utf-8").partition("\n## Supply chain\n")[2]
FLOORS = {name: Version(floor) for name, floor in FLOOR.findall(SECTION.partition("\n## ")[0])}
SOURCES = sorted(path for package in ("service", "training", "export") for path in (ROOT / package).rglob("*.py"))
CODE_IN_DATA = r"noqa:[^#\n]*\bS(?:102|301|302|307|506|614)\b"


def find_floor(requirement: Requirement) -> Version:
    """The lowest version that a requirement allows."""
    return max(Version(part.version) for part in requirement.specifier if part.operator in {">=", "=="})


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_a_floor(requirement: Requirement) -> None:
    assert find_floor(requirement) > Version("0")


@pytest.mark.parametrize("name", FLOORS)
def test_no_version_with_a_known_hole_is_allowed(name: str) -> None:
    allowed = [find_floor(requirement) for requirement in REQUIREMENTS if requirement.name == name]
    assert allowed
    assert min(allowed) >= FLOORS[name]


def test_no_version_with_a_known_hole_is_in_the_image() -> None:
    pinned = {name: version for lock in (TRACING_LOCK, BUILD_LOCK) for name, (version, _) in read_lock(lock).items()}
    floors = {canonicalize_name(name): floor for name, floor in FLOORS.items()}
    shared = floors.keys() & pinned.keys()
    assert {"pillow", "python-multipart", "starlette", "h11", "onnxruntime"} <= shared
    assert {name: pinned[name] for name in shared if pinned[name] < floors[name]} == {}


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("S301", "from pickle import loads\n\nloads(b'')"),
        ("S301", "import pandas as pd\n\npd.read_pickle('a')"),
        ("S302", "import marshal\n\nmarshal.loads(b'')"),
        ("S307", "eval('1')"),
        ("S102", "exec('1')"),
        ("S506", "import yaml\n\nyaml.load('')"),
        ("TID251", "import torch\n\ntorch.load('a')"),
        ("TID251", "import pickle"),
        ("TID251", "import shelve"),
    ],
)
def test_a_way_to_run_data_as_code_does_not_pass_the_check(code: str, source: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "service/late.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=f"{source}\n", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{code} " in done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_asks_for_pickled_objects_or_silences_that_check(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    keywords = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword)]
    asked = [node.lineno for node in keywords if node.arg == "allow_pickle" and ast.unparse(node.value) != "False"]
    assert asked == []
    assert re.search(CODE_IN_DATA, source) is None
