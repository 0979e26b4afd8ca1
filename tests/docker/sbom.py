"""What the service's image installs, as a CycloneDX bill of materials, down to the native libraries inside the wheels.

Run from the repository's root: `make sbom`. It unpacks what docker/requirements.lock pins, for the image's Python, into
a folder of its own, so that nothing but that is listed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tests.docker.locks import ROOT, SERVICE_LOCK, find_python

Component = dict[str, Any]

_VERSION = SchemaVersion.V1_6
# The C library of Debian bookworm.
_PLATFORM = "x86_64-manylinux_2_36"
# What CycloneDX 1.4 to 1.7 agree on; a wheel's own bill may be of any.
_KEPT = ("type", "name", "version", "purl", "cpe", "licenses")
# Libraries that wheels carry without a bill of their own, by what their binaries say of themselves.
_SIGNS = {
    "libjpeg-turbo": re.compile(rb"libjpeg-turbo version (\d[\d.]*\d)"),
    "OpenBLAS": re.compile(rb"OpenBLAS (\d[\d.]*\d)"),
}


def install_lock(lock: Path, folder: Path) -> Path:
    """Unpack what a lock pins, its hashes checked, into a new virtual environment.

    Args:
        lock: requirements with hashes.
        folder: where the environment goes; its own Python runs nothing of what is in it.

    Returns:
        The folder that holds the packages.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    options = ["--require-hashes", "--no-build", "--python-version", find_python(), "--python-platform", _PLATFORM]
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(site)]
    subprocess.run([*install, *options, "--requirement", str(lock)], check=True)
    return site


def describe(environment: Path) -> Component:
    """List the packages of a virtual environment, with licences and what needs what, below unihead itself."""
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--spec-version", _VERSION.to_version()]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", *options]
    done = subprocess.run([*command, str(environment)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def list_bundled(distribution: Distribution) -> list[Component]:
    """List what a package carries within: what its own bills say (PEP 770), or else what its binaries say."""
    files = [(path, Path(str(distribution.locate_file(path)))) for path in distribution.files or ()]
    declared = [
        {key: component[key] for key in _KEPT if key in component}
        for path, file in files
        if path.parent.name == "sboms" and path.suffix == ".json"
        for component in json.loads(file.read_text(encoding="utf-8")).get("components", ())
        if canonicalize_name(component["name"]) != canonicalize_name(distribution.name)
    ]
    seen = [
        {"type": "library", "name": name, "version": match[1].decode()}
        for path, file in files
        if not declared and ".so" in path.suffixes
        for name, sign in _SIGNS.items()
        if (match := sign.search(file.read_bytes()))
    ]
    unique = {(component["name"], component.get("version")): component for component in declared + seen}
    return list(unique.values())


def add_bundled(bill: Component, site: Path) -> None:
    """Put what each installed package carries below it, in place."""
    bundled = {canonicalize_name(found.name): list_bundled(found) for found in distributions(path=[str(site)])}
    for component in bill["components"]:
        if inner := bundled[canonicalize_name(component["name"])]:
            component["components"] = inner


def validate(text: str) -> None:
    """Hold a bill against CycloneDX's schema.

    Raises:
        ValueError: it does not match.
    """
    if error := JsonStrictValidator(_VERSION).validate_str(text):
        raise ValueError(f"not CycloneDX {_VERSION.to_version()}: {error}")


def main() -> None:
    """Write the bill to the path that the command line names."""
    (path,) = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="unihead-sbom-") as folder:
        site = install_lock(SERVICE_LOCK, Path(folder))
        bill = describe(Path(folder))
        add_bundled(bill, site)
    text = json.dumps(bill, indent=2) + "\n"
    validate(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    inner = sum(len(component.get("components", ())) for component in bill["components"])
    print(f"{path}: {len(bill['components'])} packages, and {inner} libraries that they carry; CycloneDX valid")


if __name__ == "__main__":
    main()
