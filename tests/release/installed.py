"""The wheel in an empty environment outside the checkout, where it must serve, predict and be complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.settings import ENV_PREFIX, Settings
from tests.docker.locks import SERVICE_LOCK
from tests.release.version import ReleaseError

# Of an installed unihead: every package that an extra asks for, and every module of ours.
_IMPORT_ALL = """
import importlib, importlib.metadata as metadata, pkgutil, sys, warnings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
warnings.simplefilter("ignore")  # of packages, about themselves
tops = {}
for top, names in metadata.packages_distributions().items():
    for name in names:
        tops.setdefault(canonicalize_name(name), set()).add(top)
ours = metadata.distribution("unihead")
for extra in ours.metadata.get_all("Provides-Extra"):
    wanted = [Requirement(line) for line in ours.requires if Requirement(line).marker]
    wanted = [one for one in wanted if one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})]
    if extra != "dev":
        found = {top for one in wanted for top in tops[canonicalize_name(one.name)]}
        modules = sorted(top for top in found if not top.startswith("_"))
        for module in modules:
            importlib.import_module(module)
        print(extra, *modules)
count = 0
for package in ("service", "training", "export"):
    root = importlib.import_module(package)
    assert root.__file__.startswith(sys.prefix), root.__file__
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
            count += 1
print(count, "modules")
"""
_TIMEOUT_S = 3600


def try_wheel(wheel: Path, tell: Callable[[str], object] = print) -> None:
    """Install a wheel with what the lock pins, and see whether it works there.

    What extras bring is borrowed from the environment that this runs in: torch alone would take gigabytes again.

    Args:
        wheel: of this checkout's version.
        tell: hears a line about each step.

    Raises:
        ReleaseError: something does not hold; says what.
    """
    with tempfile.TemporaryDirectory(prefix="unihead-release-") as name:
        folder = Path(name).resolve()
        commands = folder / "environment/bin"
        _run(folder, [sys.executable, "-m", "venv", str(folder / "environment")])
        pip = [str(commands / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _run(
            folder, [*pip, "install", "--require-hashes", "--only-binary", ":all:", "--requirement", str(SERVICE_LOCK)]
        )
        _run(folder, [*pip, "install", "--no-index", "--no-deps", str(wheel.resolve())])
        _run(folder, [*pip, "check"])
        tell(f"ok  {wheel.name} is installed in an empty environment, with the hashes of {SERVICE_LOCK.name}")
        told = _run(folder, [str(commands / "unihead-serve"), "selftest"]).splitlines()
        tell(f"ok  unihead-serve selftest: {len(told)} checks")
        shutil.copytree(GOLDEN_PICTURES, folder / "pictures")
        predict = [str(commands / "unihead-predict"), "pictures", "--json", "--mask", "none", "--top-k", "1"]
        answers = _run(folder, predict)
        tell(f"ok  unihead-predict: {_check_answers(answers)} pictures have the classes that the model file says")
        (site,) = (folder / "environment/lib").glob("python*/site-packages")
        borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
        borrowed = borrowed or [sysconfig.get_path("purelib")]
        (site / "borrowed.pth").write_text(f"import sys; sys.path += {borrowed!r}\n")
        *extras, modules = _run(folder, [str(commands / "python"), "-c", _IMPORT_ALL]).splitlines()
        for line in extras:
            extra, *packages = line.split()
            tell(f"ok  extra {extra}: {', '.join(packages)}")
        tell(f"ok  {modules} of service, training and export")


def _run(folder: Path, command: Sequence[str]) -> str:
    """Run a command in a folder, with nothing of ours in its environment; returns what it prints."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((ENV_PREFIX, "PYTHON", "VIRTUAL_ENV", "OTEL_"))
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)[:200]} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _check_answers(lines: str) -> int:
    """Hold what `unihead-predict` says about the shipped pictures against what the model file says."""
    contract = load_engine(Settings.model_fields["model"].default, threads=1).contract
    said = {Path(one["file"]).name: one for one in map(json.loads, lines.splitlines())}
    for golden in contract.golden:
        best = max(range(len(golden.class_probs)), key=golden.class_probs.__getitem__)
        answer = said.get(golden.file, {})
        wanted = contract.classification_classes[best]
        if [one["label"] for one in answer.get("classes", ())] != [wanted]:
            raise ReleaseError(f"about {golden.file} unihead-predict says {answer}, and not {wanted}")
    return len(contract.golden)
