"""What builds and runs images: Docker where its engine answers, else Podman, whose words are the same."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docker.pip_config import find_paths, parse_pip_config
from tests.docker.process import CommandError, attempt, run, seal
from tests.docker.stand_in import PATH, make_stand_in

_PODMAN_NEEDS = ("podman", "runc", "mmdebstrap")  # commands, and the Debian packages of the same names
_CAP_SYS_ADMIN = 1 << 21


class MissingError(Exception):
    """This machine lacks what is needed; says what."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Docker or Podman.

    Attributes:
        command: what every command begins with.
        base: the image to build on, as this engine knows it.
        description: engine and base, in words.
        build: what a build begins with.
        run_options: what this engine needs beyond what both are told.
    """

    command: tuple[str, ...]
    base: str
    description: str
    build: tuple[str, ...]
    run_options: tuple[str, ...] = ()

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail."""
        return attempt([*self.command, *words])

    def run(self, *words: str) -> str:
        """Run a command; returns what it printed.

        Raises:
            CommandError: it failed.
        """
        return run([*self.command, *words])

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What the engine knows about an "image" or a "container"."""
        (found,) = json.loads(self.run(kind, "inspect", name))
        return dict(found)


@contextlib.contextmanager
def open_engine(base: str, cache: Path) -> Iterator[Engine]:
    """Find an engine. Podman's images and containers are gone when the block ends.

    Args:
        base: the image that the Dockerfile builds on. Docker gets it itself, Podman gets a stand-in of its name.
        cache: folder that keeps the stand-in between runs.

    Raises:
        MissingError: there is neither, or no base for it.
    """
    docker = Engine(("docker",), base, f"docker on {base}", ("docker", "build"))
    if shutil.which("docker") and docker.attempt("version", "--format", "{{.Server.Version}}").returncode == 0:
        with _saying("Docker gets no base"):
            docker.run("pull", base)
        yield docker
        return
    missing = [name for name in _PODMAN_NEEDS if shutil.which(name) is None]
    if missing:
        raise MissingError(
            f"no Docker engine answers, and to do without one {', '.join(missing)} must be installed: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if not _may_mount():
        raise MissingError(
            "no Docker engine answers, and to do without one takes root's right to mount (CAP_SYS_ADMIN)"
        )
    with tempfile.TemporaryDirectory(prefix="unihead-image-") as folder:
        try:
            with _saying("no Docker engine answers, and Podman gets no base"):
                podman = _set_up_podman(base, make_stand_in(base, cache), Path(folder))
            yield podman
        finally:
            # Podman's own mount, which stays when a command of it is killed.
            attempt(["umount", "--recursive", f"{folder}/root/overlay"])


@contextlib.contextmanager
def _saying(sentence: str) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise MissingError(f"{sentence}: {error}") from error


def _may_mount() -> bool:
    rights = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return rights is not None and bool(int(rights[1], 16) & _CAP_SYS_ADMIN)


def _set_up_podman(base: str, stand_in: Path, folder: Path) -> Engine:
    """Podman with a storage of its own in a folder, and without systemd."""
    storage = ("podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver")
    # Not every file system can lie under an overlay; vfs copies everything for every layer.
    driver = "overlay" if attempt(seal([*storage, "overlay", "info"])).returncode == 0 else "vfs"
    command = (*storage, driver, "--cgroup-manager", "cgroupfs", "--runtime", "runc")
    listing = run([sys.executable, "-m", "pip", "config", "list"])
    config = parse_pip_config(listing, os.environ.get("SSL_CERT_FILE"))
    with (folder / "pip.conf").open("w") as file:
        config.write(file)
    volumes = [f"{folder}/pip.conf:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in find_paths(config))]
    # Of itself Podman asks for more than this machine may allow.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    engine = Engine(
        command,
        f"localhost/{base}",
        f"podman on a stand-in for {base} (Debian and its own Python)",
        # In Docker's format, because the other one has no health checks.
        seal(
            [
                *(*command, "build", "--isolation=chroot", "--network=host", "--pull=never", "--format=docker"),
                *("--layers=false", *(f"--volume={volume}" for volume in volumes)),
            ]
        ),
        # Its timer for health checks is systemd's, and left alone it makes more than /tmp writable.
        run_options=("--no-healthcheck", "--read-only-tmpfs=false", f"--ulimit=nofile={files}", "--ulimit=nproc=1024"),
    )
    run(seal([*command, "import", "--change", f"ENV PATH={PATH}", str(stand_in), engine.base]))
    return engine
