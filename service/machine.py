"""What this machine has: CPUs that may be used, memory as the C library keeps it, versions of packages."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger("unihead")

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD_BYTES = 8 * 2**20
_TRIM_THRESHOLD_BYTES = 32 * 2**20
_ARENAS = 2


def keep_freed_memory() -> bool:
    """Tell glibc not to give the memory of every picture back to the system, which would be faulted in again at once.

    Twice as fast resizing (docs/experiments.md). Only pieces of 8 MiB and more, three megapixels, are given back: kept,
    they made 4,000 odd files grow the process by 106 MB in place of 45. Heaps are few for the same reason: each thread
    would have one, and keep up to 32 MiB in it. Returns False, and changes nothing, where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, as musl
        return False
    wanted = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
        (_M_ARENA_MAX, _ARENAS),
    )
    done = all(mallopt(option, value) for option, value in wanted)
    logger.debug("freed memory is %s", "kept" if done else "given back")
    return done


def give_back_freed_memory() -> None:
    """Return what is free to the system all the same: after something large and rare, as a model that was replaced."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def available_cpus(
    cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup"), affinity: int | None = None
) -> int:
    """Count the CPUs that this process may use: the least of its affinity and of all cgroup quotas above it.

    A quota of 1.5 CPUs counts as 1: a second thread would be stopped for a part of every period.

    Args:
        cgroup: where the cgroup file systems (v1 or v2) are mounted.
        membership: the file that names this process's cgroups.
        affinity: CPUs that the scheduler may put this process on; None asks the system.
    """
    limits = [float(affinity or _count_affinity())]
    for folder in _cgroup_folders("cpu", cgroup, membership):
        limits += _quotas(folder)
    return max(1, int(min(limits)))


def _count_affinity() -> int:
    # Where this cannot be asked (macOS, Windows) a process may use all CPUs.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_memory_limit(
    cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup"), installed: int | None = None
) -> int | None:
    """Bytes of memory that this process may use: the least of all cgroup limits above it; None where there is none.

    A limit that the machine does not reach is none: version 1 writes a number of 19 digits where there is none.

    Args:
        cgroup: where the cgroup file systems (v1 or v2) are mounted.
        membership: the file that names this process's cgroups.
        installed: bytes of memory in the machine; None asks the system.
    """
    most = installed or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = []
    for folder in _cgroup_folders("memory", cgroup, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((folder / name).read_text()))
    least = min(limits, default=most)
    return least if least < most else None


def _cgroup_folders(controller: str, cgroup: Path, membership: Path) -> Iterator[Path]:
    """This process's cgroup folders and all above them; inside a container only the mount's root may exist."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", *lines]:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = cgroup / controllers
            own = root / path.lstrip("/")
            yield own
            yield from (folder for folder in own.parents if folder.is_relative_to(root))


def _quotas(folder: Path) -> Iterable[float]:
    """CPUs that one cgroup folder allows: cpu.max of v2, or the quota and period of v1; nothing when unlimited."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        pass
    try:
        period_us = int((folder / "cpu.cfs_period_us").read_text())
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
    except (OSError, ValueError):
        return
    if quota_us > 0:
        yield quota_us / period_us


def find_version(package: str) -> str:
    """Version of an installed package, or "unknown": a source tree runs without being installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
