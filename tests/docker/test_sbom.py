from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.docker.locks import ROOT, SERVICE_LOCK, read_lock
from tests.docker.sbom import add_bundled, list_bundled, validate

RUST = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "metadata": {"component": {"type": "library", "name": "wheel", "version": "1"}},
    "components": [
        {
            "bom-ref": "a",
            "type": "library",
            "name": "ahash",
            "version": "0.8",
            "purl": "pkg:cargo/ahash@0.8",
            "author": "x",
        },
        {"bom-ref": "b", "type": "library", "name": "some-wheel", "version": "1"},
    ],
}
EMPTY: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}


def make_distribution(site: Path, files: dict[str, bytes]) -> Distribution:
    """Install a package of these files, by hand."""
    info = "some_wheel-1.dist-info"
    files = {**files, f"{info}/METADATA": b"Metadata-Version: 2.4\nName: some.wheel\nVersion: 1\n"}
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
    (found,) = distributions(path=[str(site)])
    return found


def test_what_a_wheel_says_that_it_carries_is_listed_without_the_wheel_itself(tmp_path: Path) -> None:
    bill = {"some_wheel-1.dist-info/sboms/rust.cdx.json": json.dumps(RUST).encode()}
    (found,) = list_bundled(make_distribution(tmp_path, bill))
    assert found == {"type": "library", "name": "ahash", "version": "0.8", "purl": "pkg:cargo/ahash@0.8"}


def test_of_a_wheel_that_says_nothing_the_binaries_are_asked(tmp_path: Path) -> None:
    binary = b"\x7fELF\0libjpeg-turbo version 3.1.2 (build 20251010)\0"
    found = list_bundled(make_distribution(tmp_path, {"some/_jpeg.cpython-312-x86_64-linux-gnu.so": binary}))
    assert found == [{"type": "library", "name": "libjpeg-turbo", "version": "3.1.2"}]


def test_what_is_carried_goes_below_its_package(tmp_path: Path) -> None:
    make_distribution(tmp_path, {"some/lib.so": b"OpenBLAS 0.3.31.188.0 \0"})
    package = {"type": "library", "name": "some-wheel", "version": "1"}
    bill = {**EMPTY, "components": [dict(package)]}
    add_bundled(bill, tmp_path)
    carried = {"type": "library", "name": "OpenBLAS", "version": "0.3.31.188.0"}
    assert bill["components"] == [{**package, "components": [carried]}]
    validate(json.dumps(bill))


def test_a_bill_that_the_schema_does_not_allow_is_refused() -> None:
    validate(json.dumps(EMPTY))
    with pytest.raises(ValueError, match=r"not CycloneDX 1\.6"):
        validate(json.dumps({**EMPTY, "components": [{"name": "numpy"}]}))


@pytest.mark.full
def test_the_bill_lists_what_the_lock_pins_and_its_decoders_and_no_tool(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "tests.docker.sbom", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    bill = json.loads(path.read_text())
    components = {canonicalize_name(component["name"]): component for component in bill["components"]}
    assert {name: component["version"] for name, component in components.items()} == {
        name: str(version) for name, (version, _) in read_lock(SERVICE_LOCK).items()
    }
    assert bill["metadata"]["component"]["name"] == "unihead"
    carried = {
        (outer, inner["name"]) for outer, component in components.items() for inner in component.get("components", ())
    }
    assert carried >= {
        ("simplejpeg", "libjpeg-turbo"),
        ("pillow", "libwebp"),
        ("pillow", "zlib"),
        ("numpy", "OpenBLAS"),
    }
