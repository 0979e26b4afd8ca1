from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.release import __main__ as command
from tests.release.installed import try_wheel
from tests.release.provenance import make_provenance, write_sums
from tests.release.version import ReleaseError, read_version


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    try:
        return command.build(tmp_path_factory.mktemp("dist"))
    except ReleaseError as error:
        if "not a git repository" in str(error):
            pytest.skip("not a git checkout")
        raise


@pytest.mark.full
def test_the_built_wheel_serves_and_predicts_in_an_empty_environment(archives: list[Path]) -> None:
    (wheel,) = (path for path in archives if path.suffix == ".whl")
    told: list[str] = []
    try_wheel(wheel, told.append)
    assert any("unihead-serve selftest: 5 checks" in line for line in told)
    assert any("unihead-predict: 4 pictures" in line for line in told)
    extras = {line.split()[2].rstrip(":") for line in told if line.startswith("ok  extra")}
    assert {"train", "teachers", "distributed", "ray", "grpc", "client", "parquet", "completion", "tracing"} <= extras


@pytest.mark.full
def test_two_builds_of_a_commit_are_the_same_to_the_byte(archives: list[Path], tmp_path: Path) -> None:
    again = command.build(tmp_path / "dist")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in archives]


def test_without_a_dated_section_nothing_is_released(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "read_version", lambda: "99.0.0")
    monkeypatch.setattr(command, "build", lambda: pytest.fail("it was built"))
    assert command.main(["release"]) == 1
    assert "no section `## 99.0.0 - DATE`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tag", "revision", "sentence"),
    [
        ("v9.9.9", "c0ffee", f"its tag is v{read_version()}"),
        ("", "c0ffee-dirty", "files differ from the commit c0ffee:"),
    ],
)
def test_another_tag_and_changed_files_are_refused(
    tag: str, revision: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_notes", lambda _: "- Something.\n")
    monkeypatch.setattr(command, "find_revision", lambda: revision)
    monkeypatch.setattr(command, "build", lambda: pytest.fail("it was built"))
    assert command.main(["release", "--tag", tag]) == 1
    assert sentence in capsys.readouterr().err


def test_provenance_names_every_file_the_commit_and_what_was_locked(tmp_path: Path) -> None:
    for name in ("b.tar.gz", "a.whl"):
        (tmp_path / name).write_bytes(name.encode())
    when = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
    files = list(tmp_path.iterdir())
    made = json.loads(make_provenance(files, revision="c0ffee", version="1.2.3", started=when, finished=when))
    wanted = [
        {"name": name, "digest": {"sha256": hashlib.sha256(name.encode()).hexdigest()}}
        for name in ("a.whl", "b.tar.gz")
    ]
    assert made["subject"] == wanted
    definition = made["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["version"] == "1.2.3"
    digests = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
    lock = (ROOT / "docker/requirements.lock").read_bytes()
    assert digests["source"] == {"gitCommit": "c0ffee"}
    assert digests["docker/requirements.lock"] == {"sha256": hashlib.sha256(lock).hexdigest()}
    assert made["predicate"]["runDetails"]["metadata"]["finishedOn"] == "2026-12-01T12:00:00+00:00"


def test_sums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    for name in ("a.whl", "b.tar.gz"):
        (tmp_path / name).write_text(name)
    write_sums(list(tmp_path.iterdir()), tmp_path / "SHA256SUMS")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)
