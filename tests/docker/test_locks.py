import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.locks import BUILD_LOCK, GRPC_LOCK, ROOT, SERVICE_LOCK, TRACING_LOCK, find_python, read_lock

LOCKS = [SERVICE_LOCK, TRACING_LOCK, GRPC_LOCK, BUILD_LOCK]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICE = PROJECT["project"]["dependencies"]
WANTED = {
    SERVICE_LOCK: SERVICE,
    TRACING_LOCK: SERVICE + PROJECT["project"]["optional-dependencies"]["tracing"],
    GRPC_LOCK: SERVICE + PROJECT["project"]["optional-dependencies"]["grpc"],
    BUILD_LOCK: PROJECT["build-system"]["requires"],
}
ENTRY = r"^{}==.*\n(?: .*\n)+"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment's Python in the repository's root."""
    words = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the service's lock says about one small package, which can be had from the registry."""
    (found,) = re.findall(ENTRY.format("annotated-doc"), SERVICE_LOCK.read_text(), re.MULTILINE)
    done = run("pip", "download", "--no-deps", "--dest", tmp_path_factory.mktemp("wheel"), found.split()[0])
    if done.returncode:
        no_registry = f"no package registry answers: {done.stderr}"
        pytest.fail(no_registry) if os.environ.get("CI") else pytest.skip(no_registry)
    return str(found)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_all_that_pyproject_asks_for_in_a_version_that_it_allows(lock: Path) -> None:
    pinned = read_lock(lock)
    wanted = [Requirement(line) for line in WANTED[lock]]
    assert wanted
    assert [str(line) for line in wanted if canonicalize_name(line.name) not in pinned] == []
    assert [str(line) for line in wanted if pinned[canonicalize_name(line.name)][0] not in line.specifier] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_address_and_says_how_it_is_made(lock: Path) -> None:
    text = lock.read_text()
    assert "make lock" in text.partition("==")[0]
    assert re.search(r"://|@|^\s*-(?!-hash=)|\.(?:com|org|net|io)\b|/", text, re.MULTILINE) is None


@pytest.mark.parametrize(
    "line",
    [
        "numpy>=2.2 --hash=sha256:" + "0" * 64,
        "numpy==2.* --hash=sha256:" + "0" * 64,
        "numpy==2.4.6",
        "numpy==2.4.6 --hash=md5:" + "0" * 32,
        "numpy @ https://example.invalid/numpy.whl --hash=sha256:" + "0" * 64,
        "--index-url https://example.invalid",
    ],
)
def test_a_line_that_pins_nothing_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    path.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r".+"):
        read_lock(path)


def test_no_development_tool_and_nothing_for_training_gets_into_the_image() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    unwanted = {canonicalize_name(Requirement(line).name) for extra in ("train", "dev") for line in extras[extra]}
    # ONNX Runtime asks for it.
    assert unwanted & set(read_lock(TRACING_LOCK)) == {"packaging"}


def test_an_image_with_an_extra_has_all_that_one_without_has() -> None:
    for lock in (TRACING_LOCK, GRPC_LOCK):
        assert read_lock(SERVICE_LOCK).items() <= read_lock(lock).items()


@pytest.mark.full
def test_a_file_with_another_hash_is_refused(entry: str, tmp_path: Path) -> None:
    options = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-cache-dir", "--dest", str(tmp_path)]
    answers = []
    for lines in (entry, re.sub(r"sha256:.{8}", "sha256:00000000", entry)):
        lock = tmp_path / "some.lock"
        lock.write_text(lines)
        answers.append(run("pip", "download", *options, "--requirement", lock))
    right, wrong = answers
    assert right.returncode == 0, right.stderr
    assert wrong.returncode != 0
    assert "DO NOT MATCH THE HASHES" in wrong.stderr


@pytest.mark.full
@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_nothing_has_to_be_compiled(lock: Path, machine: str, tmp_path: Path) -> None:
    place = [
        "--python-version",
        find_python(),
        "--python-platform",
        f"{machine}-manylinux_2_36",
        "--target",
        str(tmp_path),
    ]
    done = run("uv", "pip", "install", "--dry-run", "--no-deps", "--no-build", "--require-hashes", *place, "-r", lock)
    assert done.returncode == 0, done.stderr
    left_out = 1 if machine == "aarch64" and lock != BUILD_LOCK else 0  # cykooz.resizer, which has no wheel there
    assert f"Would install {len(read_lock(lock)) - left_out} packages" in done.stderr


@pytest.mark.full
@pytest.mark.usefixtures("entry")
def test_making_the_locks_again_changes_no_version(tmp_path: Path) -> None:
    for lock in LOCKS:
        (tmp_path / lock.name).write_text(lock.read_text())
    environment = sys.prefix
    make = ["make", "--old-file", f"{environment}/.dev", "lock", f"VENV={environment}", f"LOCK_FOLDER={tmp_path}"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    versions = [{name: version for name, (version, _) in read_lock(lock).items()} for lock in LOCKS]
    again = [{name: version for name, (version, _) in read_lock(tmp_path / lock.name).items()} for lock in LOCKS]
    assert again == versions
