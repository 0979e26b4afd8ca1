"""What must hold of the service's image while it runs; each check says what it saw, or raises."""

from __future__ import annotations

import http.client
import re
import subprocess
import tarfile
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime

from service.api.keys import make_key
from service.engine.golden import GOLDEN_PICTURES
from tests.docker.answers import find_differences, post
from tests.docker.container import MEMORY_BYTES, ROOT, Container

MAX_ADDED_MB = 250
_USER = "10001"
_STOP_S = 30
# With what GNU puts before and Debian behind, as in x86_64-linux-gnu-gcc-12.
_TOOL = re.compile(r"(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|tcc|ld|as|make|gs)(?:-[\d.]+)?|pip[\d.]*")
_PACKAGE = re.compile(r"(?:.*/)?(?:torch|torchvision|pip)/__init__\.py")


class CheckError(Exception):
    """Something does not hold; says what was found."""


def expect(name: str, found: object, wanted: object) -> None:
    """Refuse what is not as wanted.

    Raises:
        CheckError: it is not.
    """
    if found != wanted:
        raise CheckError(f"{name}: {found!r}, not {wanted!r}")


def check_labels(container: Container) -> str:
    labels = container.engine.inspect("image", container.name)["Config"]["Labels"]
    found = {name.rpartition(".")[2]: value for name, value in labels.items() if name.startswith("org.opencontainers.")}
    expect("time zone of created", datetime.fromisoformat(found.pop("created")).tzinfo, UTC)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"title": "name", "description": "description", "licenses": "license", "version": "version"}
    expect("labels", found, {"revision": container.revision} | {name: project[key] for name, key in wanted.items()})
    return f"{found['title']} {found['version']}, revision {found['revision'][:12]}"


def check_size(container: Container) -> str:
    base, whole = (container.engine.inspect("image", name)["Size"] for name in (container.engine.base, container.name))
    added = f"{(whole - base) / 1e6:.0f} MB over a base of {base / 1e6:.0f} MB; at most {MAX_ADDED_MB}"
    if whole - base > MAX_ADDED_MB * 1e6:
        raise CheckError(added)
    return added


def is_unwanted(path: str, *, program: bool) -> bool:
    """Tell whether a file in the image belongs to what it shall not have.

    Args:
        path: of the file, with / between its parts.
        program: whether it can be executed, or is a link to what perhaps can.
    """
    return bool((program and _TOOL.fullmatch(path.rpartition("/")[2])) or _PACKAGE.fullmatch(path))


def check_contents(container: Container) -> str:
    files, unwanted = 0, []
    command = [*container.engine.command, "export", container.name]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            files += member.isreg()
            program = member.issym() or (not member.isdir() and bool(member.mode & 0o111))
            if is_unwanted(member.name, program=program):
                unwanted.append(member.name)
    expect("exit code of export", process.returncode, 0)
    expect("what it shall not have", unwanted, [])
    return f"{files} files"


def check_rights(container: Container) -> str:
    status = container.read_status()
    expect("user", status["Uid"].split(), [_USER] * 4)
    expect("group", status["Gid"].split(), [_USER] * 4)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        expect(name, int(status[name], 16), 0)
    expect("NoNewPrivs", status["NoNewPrivs"], "1")
    return f"user {_USER}, CapEff 0, NoNewPrivs 1"


def check_read_only(container: Container) -> str:
    for folder in ("/", "/etc", "/opt/unihead", "/usr/local", "/var/tmp"):  # noqa: S108 - of the container
        done = container.attempt("touch", f"{folder}/written")
        if done.returncode == 0 or "Read-only file system" not in done.stderr:
            raise CheckError(f"writing to {folder} ends with {done.returncode} {done.stderr.strip()}")
    expect("exit code of writing to /tmp", container.attempt("touch", "/tmp/written").returncode, 0)  # noqa: S108 - the container's own /tmp
    return "nothing can be written outside /tmp"


def check_working_folder(container: Container) -> str:
    folder, *files = container.attempt("sh", "-c", "pwd; ls -A").stdout.splitlines()
    expect("the root of the file system as working folder", folder == "/", False)
    expect(f"files in {folder}", files, [])
    return f"{folder} is empty"


def check_health(container: Container) -> str:
    image = container.engine.inspect("image", container.name)
    check = image.get("Healthcheck") or image["Config"]["Healthcheck"]  # Podman's place, and Docker's
    kind, *words = check["Test"]
    expect("kind of health check", kind, "CMD")
    started = time.monotonic()
    done = container.attempt(*words)
    expect(f"exit code of {' '.join(words)} ({done.stderr.strip()})", done.returncode, 0)
    return f"{' '.join(words)}: exit code 0 in {time.monotonic() - started:.1f} s"


def check_keys(container: Container) -> str:
    body = next(GOLDEN_PICTURES.glob("*.jpg")).read_bytes()
    for headers in ({}, {"Authorization": f"Bearer {make_key()}"}):
        status, _ = post(container.port, "predict", body, headers)
        expect("status", status, http.client.UNAUTHORIZED)
    return "401 without a key and with another"


def check_answers(container: Container) -> str:
    expect("differences", find_differences(container.port, container.key), [])
    return f"{len(list(GOLDEN_PICTURES.glob('*.jpg')))} pictures: what the model answered when it was exported"


def check_memory(container: Container) -> str:
    cgroup = "/sys/fs/cgroup"
    paths = f"{cgroup}/memory.max {cgroup}/memory/memory.limit_in_bytes"  # of version 2 and of version 1
    expect("limit", container.attempt("sh", "-c", f"cat {paths}").stdout.strip(), str(MEMORY_BYTES))
    status = container.read_status()
    now, most = (int(status[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return f"{now:.0f} MB resident after answering, {most:.0f} MB at most, of {MEMORY_BYTES >> 20} MiB"


def check_stop(container: Container) -> str:
    started = time.monotonic()
    container.engine.run("stop", "-t", str(_STOP_S), container.name)
    state = container.engine.inspect("container", container.name)["State"]
    expect("exit code", state["ExitCode"], 0)
    expect("killed for want of memory", state["OOMKilled"], False)
    return f"exit code 0, {time.monotonic() - started:.1f} s after SIGTERM"


# In this order: memory after answering, and what is stopped last.
CHECKS: dict[str, Callable[[Container], str]] = {
    "labels": check_labels,
    "size": check_size,
    "no compiler, torch, Ghostscript or pip": check_contents,
    "rights": check_rights,
    "read-only root": check_read_only,
    "working folder": check_working_folder,
    "health check": check_health,
    "keys": check_keys,
    "answers": check_answers,
    "memory": check_memory,
    "stop": check_stop,
}
