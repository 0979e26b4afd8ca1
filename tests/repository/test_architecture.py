"""What lies where, and which packages may import what of each other."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import ROOT, tracked_files

PACKAGES = ("service", "training", "export")

TOP_LEVEL = {
    *PACKAGES,
    "docker",
    "tests",
    "docs",
    "pyproject.toml",
    "hatch_build.py",  # of the wheel; where hatchling looks for it
    "docker-compose.yml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CITATION.cff",
    "mkdocs.yml",
    "LICENSE",
    "Makefile",
    ".ci",
    ".github",
    ".gitignore",
    ".dockerignore",
    ".editorconfig",
    ".hadolint.yaml",
    ".yamllint",
}

# What each package may import of the others: rooms one level down, by name.
SERVICE_DOORS = {"pictures", "engine", "errors", "machine"}
DOORS: dict[str, dict[str, set[str]]] = {
    "service": {"training": set(), "export": set()},
    "training": {"service": SERVICE_DOORS, "export": set()},
    "export": {
        "service": SERVICE_DOORS,
        # The last three are for parity: the same pictures, the same metrics, from both sides.
        "training": {"models", "checkpoint", "config", "data", "inference", "metrics"},
    },
}

# People copy the client alone into their projects, which they could not do with several modules.
MOST_LINES = {"service/client.py": 549}

IMPORT_ALL_WITHOUT = """
import importlib, pkgutil, sys

for name in sys.argv[1:]:
    sys.modules[name] = None  # makes `import name` raise ModuleNotFoundError

import service

for module in pkgutil.walk_packages(service.__path__, "service."):
    importlib.import_module(module.name)
    print(module.name)
"""


def run(*command: str) -> str:
    """Run a command in the repository; give back what it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules_of(package: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def imported_modules(source: str) -> Iterator[str]:
    """Name every module that a source imports, at any depth; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def trespasses(package: str, source: str) -> list[str]:
    """List what a source of `package` imports from rooms that it has no door to."""
    doors = DOORS[package]
    parts = [name.split(".") for name in imported_modules(source)]
    return [".".join(name) for name in parts if name[0] in doors and (len(name) == 1 or name[1] not in doors[name[0]])]


def test_the_top_level_holds_what_was_ordered_and_nothing_else() -> None:
    assert {path.parts[0] for path in tracked_files()} == TOP_LEVEL


def test_tests_are_no_packages() -> None:
    # With an __init__.py in tests/service, `import service` would find the tests.
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_grows_past_300_lines(package: str) -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in modules_of(package)}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES.get(path, 300)} == {}


def test_no_script_of_the_page_grows_past_200_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "service/web/page").glob("*.js")}
    assert len(lengths) > 5
    assert {name: length for name, length in lengths.items() if length > 200} == {}


@pytest.mark.parametrize("path", [path for package in PACKAGES for path in modules_of(package)], ids=str)
def test_modules_import_other_packages_through_their_doors_only(path: Path) -> None:
    assert trespasses(path.parts[0], (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("service", "import training"),
        ("service", "def late():\n    from export.graph import build_graph"),
        ("training", "from service import app"),
        ("training", "import service.settings as settings"),
        ("training", "import export.parity"),
        ("export", "from training.objectives import segmentation_loss"),
        ("export", "from training import continual"),
    ],
)
def test_a_trespass_is_seen(package: str, source: str) -> None:
    assert len(trespasses(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("training", "from service.pictures.imaging import letterbox\nimport service.engine"),
        ("export", "from training.models.multitask import MultiTaskNet\nfrom service import engine"),
        ("service", "from service.app import create_app\nimport exportlib"),
    ],
)
def test_an_open_door_is_open(package: str, source: str) -> None:
    assert trespasses(package, source) == []


def test_import_contracts_hold() -> None:
    run(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")


def test_every_service_module_imports_without_torch_training_and_export() -> None:
    imported = run(
        sys.executable, "-c", IMPORT_ALL_WITHOUT, "torch", "torchvision", "onnx", "onnxscript", "training", "export"
    )
    assert "service.engine.engine" in imported.split()


def test_reading_the_training_config_does_not_load_torch() -> None:
    assert run(sys.executable, "-c", "import sys, training.config; print('torch' in sys.modules)") == "False\n"


def test_base_dependencies_hold_nothing_that_only_training_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~\[; ]", line)[0] for line in project["dependencies"]}
    train = {re.split(r"[<>=!~\[; ]", line)[0] for line in project["optional-dependencies"]["train"]}
    assert "torch" in train
    assert names & train == set()


@pytest.mark.slow
def test_the_wheel_holds_the_model_the_page_and_the_presets(tmp_path: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    run(sys.executable, "-m", "pip", "wheel", ".", *options)
    (wheel,) = tmp_path.glob("unihead-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    golden = {f"service/models/golden/{picture}.jpg" for picture in ("astronaut", "chelsea", "coffee", "rocket")}
    presets = {f"training/presets/{preset}.toml" for preset in ("seed", "tiny")} | {
        "training/data/imagenet.txt",
        "training/data/sets/large.toml",
    }
    modules = {str(path) for package in PACKAGES for path in modules_of(package)}
    web = {str(path.relative_to(ROOT)) for path in (ROOT / "service" / "web").rglob("*") if path.is_file()}
    assert {"service/web/index.html", "service/web/page.css", "service/web/page/main.js"} <= web
    wanted = {"service/models/unihead.onnx", *web, *golden, *presets, *modules}
    assert wanted - names == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
