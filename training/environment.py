"""What a run was made with: code, packages and machine, without names of hosts or paths; kept as JSON lines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import torch

from service.machine import find_memory_limit
from training.files import write_whole

ENVIRONMENT_NAME = "environment.jsonl"
_PACKAGES = ("unihead", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "cykooz.resizer", "onnxruntime")

Environment: TypeAlias = dict[str, str]


def find_git_commit() -> str:
    """Name the commit of this code; "-dirty" when tracked files differ from it, "unknown" outside its repository."""
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed words

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # installed inside somebody else's repository
            return "unknown"
        return git("describe", "--always", "--abbrev=12", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_machine(device: torch.device) -> str:
    """Say in one line what runs are trained on: torch, and the processor with its threads or the GPU."""
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    return f"torch {torch.__version__}, {_find_processor()}, {torch.get_num_threads()} threads"


def describe_environment(device: torch.device, *, processes: int = 1) -> Environment:
    """Name everything that a figure may depend on beside config and data, by what it is.

    Args:
        device: that the network is trained on.
        processes: that train it together.
    """
    found = {
        "commit": find_git_commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "processor": _find_processor(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "memory": f"{_find_memory_bytes() / 2**30:.0f} GiB",
        "processes": str(processes),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    return found | dict(_find_versions())


def _find_versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, torch.__version__ if name == "torch" else metadata.version(name)  # torch itself names its build
        except metadata.PackageNotFoundError:  # unihead, where it runs from its folder
            continue


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _find_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def find_memory_limit_bytes(cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """How much memory this process may take: that of the machine, or less where a container or cgroup says so.

    Args:
        cgroup: where the cgroup file systems (v1 or v2) are mounted.
        membership: the file that names this process's cgroups.
    """
    return find_memory_limit(cgroup, membership) or _find_memory_bytes()


def append_environment(out: Path, environment: Environment) -> None:
    """Add a line to a run's file, unless it would say what the last one says: a run may go on elsewhere."""
    known = read_environments(out)
    if known[-1:] != [environment]:
        write_whole(out / ENVIRONMENT_NAME, "".join(json.dumps(each) + "\n" for each in [*known, environment]))


def read_environments(out: Path) -> list[Environment]:
    """Read what a run was begun and gone on with, in that order; empty where it left no such file."""
    path = out / ENVIRONMENT_NAME
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
