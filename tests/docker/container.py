"""The service's image: built from its Dockerfile, and run with no more rights than it is deployed with."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.api.keys import hash_key, make_key
from tests.docker.engine import Engine, MissingError
from tests.docker.process import CommandError, run

ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 512 << 20
_DOCKERFILE = ROOT / "docker/service.Dockerfile"
_PORT = 8000
_PUBLISH = f"--publish=127.0.0.1::{_PORT}"
_START_S = 60
_POLL_S = 0.1
_LOCKED = (
    *("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *(f"--memory={MEMORY_BYTES}", f"--memory-swap={MEMORY_BYTES}", "--pids-limit=256"),
)


@dataclass(frozen=True, slots=True)
class Container:
    """The image, running.

    Attributes:
        name: of the container and of its image.
        revision: that the image was built with.
        port: where the service answers on 127.0.0.1.
        key: that it asks for.
    """

    engine: Engine
    name: str
    revision: str
    port: int
    key: str

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside that may fail."""
        return self.engine.attempt("exec", self.name, *words)

    def read(self, path: str) -> str:
        """Read a file inside.

        Raises:
            CommandError: it cannot be read.
        """
        return self.engine.run("exec", self.name, "cat", path)

    def read_status(self) -> dict[str, str]:
        """What the kernel says about the service's process."""
        lines = (line.partition(":") for line in self.read("/proc/1/status").splitlines())
        return {name: value.strip() for name, _, value in lines}


def find_base() -> str:
    """The image that the Dockerfile builds on."""
    base: str = re.findall(r"^FROM (\S+)", _DOCKERFILE.read_text(), re.MULTILINE)[-1]
    return base


def find_revision() -> str:
    """The commit, with "-dirty" behind it if files differ from it; "unknown" outside a git checkout."""
    command = ["git", "-c", "safe.directory=*", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def try_engine(engine: Engine) -> None:
    """Run nothing on the base, in the way that the image will be run.

    Raises:
        MissingError: this machine does not allow it, whatever the image is like.
    """
    try:
        engine.run("run", "--rm", *_LOCKED, _PUBLISH, *engine.run_options, engine.base, "true")
    except CommandError as error:
        raise MissingError(f"this machine cannot run a container with as few rights: {error}") from error


@contextlib.contextmanager
def build_image(engine: Engine, name: str, revision: str) -> Iterator[None]:
    """Build the image, for as long as the block lasts.

    Raises:
        CommandError: it cannot be built.
    """
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    arguments = (f"--build-arg=REVISION={revision}", f"--build-arg=CREATED={created}")
    try:
        run([*engine.build, f"--file={_DOCKERFILE}", *arguments, f"--tag={name}", str(ROOT)])
        yield
    finally:
        engine.attempt("rmi", "--force", name)


@contextlib.contextmanager
def run_image(engine: Engine, name: str, revision: str) -> Iterator[Container]:
    """Run the image with a key until the block ends; it is ready when the block begins.

    Raises:
        CommandError: it cannot be run, or does not become ready; says what it said.
    """
    key = make_key()
    with tempfile.TemporaryDirectory(prefix="unihead-keys-") as folder:
        keys = Path(folder) / "keys"
        keys.write_text(f"image-test {hash_key(key)}\n")
        # Inside, it is read by a user that this machine does not know.
        Path(folder).chmod(0o755)
        options = (*_LOCKED, _PUBLISH, f"--volume={keys}:/run/keys:ro", "--env=UNIHEAD_KEYS=/run/keys")
        try:
            engine.run("run", "--detach", f"--name={name}", *options, *engine.run_options, name)
            port = int(engine.run("port", name, f"{_PORT}/tcp").rpartition(":")[2])
            if not _becomes_ready(port):
                logs = engine.attempt("logs", name)
                raise CommandError(f"the service was not ready within {_START_S} s: {logs.stdout}{logs.stderr}")
            yield Container(engine, name, revision, port, key)
        finally:
            engine.attempt("rm", "--force", name)


def _becomes_ready(port: int) -> bool:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == http.client.OK:
                    return True
        time.sleep(_POLL_S)
    return False
