from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.machine import available_cpus, find_memory_limit, find_version

# Minor page faults of the fiftieth picture that takes eight buffers: none where freed memory is kept.
COUNT_FAULTS = """
import resource, sys
import numpy as np
from service.machine import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(50):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [np.ones(2**20, dtype=np.uint8) for _ in range(8)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_is_used_again_without_faulting_it_in() -> None:
    assert faults("keep") < 10 < faults("give back")


GIVE_BACK = """
import sys
from service.machine import give_back_freed_memory, keep_freed_memory

def resident_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:"))

keep_freed_memory()
blocks = [bytes(2**16) + b"x" for _ in range(800)]  # 50 MB, below what is kept
stays = blocks.pop()  # at the top of the heap, so that nothing below it goes by itself
full = resident_kb()
del blocks
kept = resident_kb()
give_back_freed_memory()
print(full - kept, full - resident_kb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_goes_back_when_that_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, check=True)
    by_itself_kb, asked_kb = map(int, done.stdout.split())
    assert by_itself_kb < 5_000
    assert asked_kb > 40_000


def make_cgroup(root: Path, lines: str, **files: str) -> tuple[Path, Path]:
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs").replace(
            "y_limit", "y.limit"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "membership").write_text(lines)
    return root, root / "membership"


@pytest.mark.parametrize(
    ("cpu_max", "cpus"), [("200000 100000", 2), ("150000 100000", 1), ("10000 100000", 1), ("max 100000", 8)]
)
def test_the_v2_quota_of_a_container_counts(tmp_path: Path, cpu_max: str, cpus: int) -> None:
    assert available_cpus(*make_cgroup(tmp_path, "0::/\n", cpu_max=cpu_max), affinity=8) == cpus


def test_the_tightest_quota_above_a_process_counts(tmp_path: Path) -> None:
    cgroup = make_cgroup(
        tmp_path, "0::/pod/app\n", pod__app__cpu_max="600000 100000", pod__cpu_max="300000 100000", cpu_max="max 100000"
    )
    assert available_cpus(*cgroup, affinity=8) == 3


def test_the_v1_quota_counts(tmp_path: Path) -> None:
    lines = "3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n"
    cgroup = make_cgroup(
        tmp_path, lines, **{"cpu,cpuacct__cpu_cfs_quota_us": "400000", "cpu,cpuacct__cpu_cfs_period_us": "100000"}
    )
    assert available_cpus(*cgroup, affinity=8) == 4


def test_no_v1_quota_is_no_limit(tmp_path: Path) -> None:
    cgroup = make_cgroup(tmp_path, "1:cpu:/\n", cpu__cpu_cfs_quota_us="-1", cpu__cpu_cfs_period_us="100000")
    assert available_cpus(*cgroup, affinity=8) == 8


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "no", tmp_path / "none", affinity=5) == 5
    assert available_cpus() >= 1


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/\n", {"memory_max": "1073741824\n"}, 2**30),
        ("0::/\n", {"memory_max": "max\n"}, None),
        ("0::/pod/app\n", {"pod__app__memory_max": "max", "pod__memory_max": "4000", "memory_max": "5000"}, 4000),
        ("4:memory:/docker/abc\n0::/\n", {"memory__memory_limit_in_bytes": "536870912\n"}, 2**29),
        ("4:memory:/docker/abc\n", {"memory__docker__abc__memory_limit_in_bytes": "7000"}, 7000),
        ("4:memory:/\n", {"memory__memory_limit_in_bytes": "9223372036854771712\n"}, None),  # as v1 says "none"
        ("0::/\n", {"memory_max": str(64 * 2**30)}, None),  # more than the machine has
        ("3:cpu:/\n", {"cpu__memory_max": "100"}, None),
    ],
)
def test_the_tightest_limit_of_memory_above_a_process_counts(
    tmp_path: Path, lines: str, files: dict[str, str], limit: int | None
) -> None:
    assert find_memory_limit(*make_cgroup(tmp_path, lines, **files), installed=32 * 2**30) == limit


def test_without_cgroups_memory_has_no_limit(tmp_path: Path) -> None:
    assert find_memory_limit(tmp_path / "no", tmp_path / "none") is None
    assert (find_memory_limit() or 1) > 0


def test_an_installed_package_tells_its_version() -> None:
    assert find_version("numpy") == np.__version__


def test_a_package_that_is_not_installed_is_unknown() -> None:
    assert find_version("no-such-package-anywhere") == "unknown"
