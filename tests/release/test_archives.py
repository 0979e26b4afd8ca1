from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.release.archives import Files, find_faults

PYPROJECT = b'[project]\nname = "unihead"\nversion = "1.2.3"\nlicense = "Apache-2.0"\nrequires-python = ">=3.11"\n'
METADATA = (
    b"Name: unihead\nVersion: 1.2.3\nLicense-Expression: Apache-2.0\nRequires-Python: >=3.11\n"
    b"License-File: LICENSE\nLicense-File: service/web/NOTICE\n\nReadme.\n"
)
TRACKED = {
    "pyproject.toml": PYPROJECT,
    "LICENSE": b"licence",
    "service/__init__.py": b"",
    "service/web/NOTICE": b"notice",
    "service/models/golden/cat.jpg": b"cat",
    "training/data/__init__.py": b"",
    "tests/test_service.py": b"",
}
OURS = {name: content for name, content in TRACKED.items() if name.partition("/")[0] in {"service", "training"}}
INFO = "unihead-1.2.3.dist-info"
WHEEL = OURS | {
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/licenses/LICENSE": b"licence",
    f"{INFO}/licenses/service/web/NOTICE": b"notice",
}
SDIST = OURS | {"PKG-INFO": METADATA, "LICENSE": b"licence", "pyproject.toml": PYPROJECT}


def find(tmp_path: Path, files: Files, tracked: Files = TRACKED, *, suffix: str = "-py3-none-any.whl") -> list[str]:
    archive = tmp_path / f"unihead-1.2.3{suffix}"
    archive.touch()
    return list(find_faults(archive, files, tracked))


def test_what_git_has_of_the_packages_with_its_licences_is_right(tmp_path: Path) -> None:
    assert find(tmp_path, WHEEL) == []
    assert find(tmp_path, SDIST, suffix=".tar.gz") == []


def test_what_a_build_hook_makes_of_a_proto_file_belongs_to_it(tmp_path: Path) -> None:
    assert find(tmp_path, WHEEL | {"service/rpc/v2_pb2.py": b"", "service/rpc/v2_pb2_grpc.py": b""}) == []
    assert find(tmp_path, WHEEL | {"service/rpc/v2_pb3.py": b""}) == ["service/rpc/v2_pb3.py is not known to git"]


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("service/notes.py", ["is not known to git"]),
        ("service/test_app.py", ["is a test", "is not known to git"]),
        ("service/tests/fakes.py", ["is a test", "is not known to git"]),
        ("service/conftest.py", ["is a test", "is not known to git"]),
        ("training/data/rows.jsonl", ["is data", "is not known to git"]),
        ("service/keys/first.key", ["is data", "is not known to git"]),
        ("service/models/other.onnx", ["is a model, and not the embedded one", "is not known to git"]),
        ("service/web/photo.jpg", ["is a picture, and not one of the golden ones", "is not known to git"]),
        ("tests/fakes.py", ["lies outside export, service, training", "is a test", "is not known to git"]),
        ("runs/checkpoint.pt", ["lies outside export, service, training", "is data", "is not known to git"]),
    ],
)
def test_what_does_not_belong_into_a_wheel_is_named(tmp_path: Path, name: str, faults: list[str]) -> None:
    assert find(tmp_path, WHEEL | {name: b"1"}) == [f"{name} {fault}" for fault in faults]


def test_data_that_git_keeps_beside_the_code_are_not_missed(tmp_path: Path) -> None:
    assert find(tmp_path, WHEEL, TRACKED | {"training/checkpoints/first.pt": b"1"}) == []


@pytest.mark.parametrize("name", ["service/app.jsonl", "service/test_app.py"])
def test_what_git_knows_is_no_better_for_it(tmp_path: Path, name: str) -> None:
    assert len(find(tmp_path, WHEEL | {name: b""}, TRACKED | {name: b""})) == 1


def test_a_source_distribution_has_no_tests_and_no_documents(tmp_path: Path) -> None:
    others = {"tests/test_service.py": b"", "docs/index.md": b""}
    found = find(tmp_path, SDIST | others, TRACKED | others, suffix=".tar.gz")
    assert sorted({fault.partition(" ")[0] for fault in found}) == sorted(others)


def test_what_is_missing_or_another_is_named(tmp_path: Path) -> None:
    changed = {name: content for name, content in WHEEL.items() if name != "training/data/__init__.py"}
    assert find(tmp_path, changed | {"service/__init__.py": b"1"}) == [
        "service/__init__.py has other bytes than the checkout",
        "training/data/__init__.py is missing",
    ]


@pytest.mark.parametrize(
    ("before", "behind", "fault"),
    [
        ("Version: 1.2.3", "Version: 1.2.4", "says Version: 1.2.4, pyproject.toml 1.2.3"),
        (
            "License-Expression: Apache-2.0",
            "License: Apache",
            "says License-Expression: None, pyproject.toml Apache-2.0",
        ),
        ("License-File: service/web/NOTICE\n", "", "service/web/NOTICE is not among the licence files"),
        ("License-File: LICENSE\n", "License-File: LICENSE\nLicense-File: COPYING\n", "COPYING is no licence file"),
    ],
)
def test_metadata_say_what_pyproject_says_and_name_every_licence(
    tmp_path: Path, before: str, behind: str, fault: str
) -> None:
    metadata = METADATA.decode().replace(before, behind).encode()
    (found,) = find(tmp_path, WHEEL | {f"{INFO}/METADATA": metadata})
    assert fault in found


def test_licences_are_there_and_not_only_named(tmp_path: Path) -> None:
    without = {name: content for name, content in WHEEL.items() if name != f"{INFO}/licenses/LICENSE"}
    assert find(tmp_path, without) == [f"{INFO}/licenses/LICENSE is missing, or another text"]
    assert find(tmp_path, {name: content for name, content in WHEEL.items() if INFO not in name}) == [
        f"{INFO}/METADATA is missing"
    ]


def test_an_archive_is_no_larger_than_what_is_shipped(tmp_path: Path) -> None:
    archive = tmp_path / "unihead-1.2.3-py3-none-any.whl"
    with archive.open("wb") as file:
        file.truncate(17 * 2**20)
    assert list(find_faults(archive, WHEEL, TRACKED)) == [f"{archive.name} has 17825792 bytes, more than 16777216"]


def test_every_licence_of_the_packages_stands_in_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for path in ROOT.glob("service/web/swagger-ui/*"):
        if path.name in {"LICENSE", "NOTICE"}:
            assert f'"{path.relative_to(ROOT)}"' in text
