from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker import engine, image
from tests.docker.checks import CheckError, expect, is_unwanted
from tests.docker.container import ROOT
from tests.docker.pip_config import find_paths, parse_pip_config


@pytest.mark.full
def test_the_image_works_as_it_is_deployed() -> None:
    command = [sys.executable, "-m", "tests.docker.image"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_missing_is_said_by_the_names_of_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", {"podman": "/usr/bin/podman"}.get)
    assert image.main([]) == 2
    assert "apt-get install --no-install-recommends runc mmdebstrap" in capsys.readouterr().err


def test_without_the_right_to_mount_it_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "docker" else f"/usr/bin/{name}")
    monkeypatch.setattr(engine, "_may_mount", lambda: False)
    assert image.main([]) == 2
    assert "CAP_SYS_ADMIN" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/gcc",
        "usr/bin/x86_64-linux-gnu-g++-12",
        "usr/bin/clang-14",
        "usr/bin/gs",
        "usr/local/bin/pip3.12",
        "usr/local/lib/python3.12/site-packages/pip/__init__.py",
        "opt/unihead/lib/python3.12/site-packages/torch/__init__.py",
    ],
)
def test_tools_and_packages_that_an_image_shall_not_have_are_seen(path: str) -> None:
    assert is_unwanted(path, program=True)


@pytest.mark.parametrize("path", ["usr/bin/ldd", "usr/bin/gsettings", "etc/ssl/certs/cc450945.0", "usr/bin/pipewire"])
def test_other_programs_may_stay(path: str) -> None:
    assert not is_unwanted(path, program=True)


def test_a_file_that_is_no_program_may_have_any_name() -> None:
    assert not is_unwanted("usr/share/doc/gcc", program=False)


def test_what_is_not_as_wanted_is_refused_with_both() -> None:
    with pytest.raises(CheckError, match="exit code: 137, not 0"):
        expect("exit code", 137, 0)


def test_pips_configuration_goes_into_a_file_and_the_environment_wins() -> None:
    listing = (
        ":env:.timeout='180'\nglobal.timeout='15'\nglobal.extra-index-url='\\nhttps://a.example\\nhttps://b.example'\n"
    )
    config = parse_pip_config(listing + "install.no-deps='true'\n", "/certificates.pem")
    assert {name: dict(section) for name, section in config.items() if name != "DEFAULT"} == {
        "global": {
            "cert": "/certificates.pem",
            "timeout": "180",
            "extra-index-url": "https://a.example https://b.example",
        },
        "install": {"no-deps": "true"},
    }


def test_files_that_pips_configuration_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "certificates.pem").touch()
    (tmp_path / "index" / "simple").mkdir(parents=True)
    config = parse_pip_config(
        f"global.cert='{tmp_path}/certificates.pem'\n"
        f"global.extra-index-url='file://{tmp_path}/index/simple https://pypi.example/simple'\n"
        f"global.find-links='{tmp_path}/nowhere'\n"
    )
    assert find_paths(config) == {tmp_path / "certificates.pem", tmp_path / "index"}
