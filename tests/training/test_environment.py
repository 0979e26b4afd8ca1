import os
import platform
from pathlib import Path

import pytest
import torch

from tests.training.watched import CPU
from training.environment import (
    append_environment,
    describe_environment,
    find_memory_limit_bytes,
    read_environments,
)


def test_an_environment_names_what_figures_depend_on_and_neither_host_nor_path() -> None:
    found = describe_environment(CPU, processes=2)
    assert found["torch"] == torch.__version__
    assert found["processes"] == "2"
    assert found["device"] == "CPU"
    assert {"commit", "processor", "cores", "memory", "Python", "numpy", "onnxruntime"} <= found.keys()
    told = " ".join(found.values())
    assert platform.node() not in told.split()
    assert str(Path.home()) not in told
    assert str(Path.cwd()) not in told


def test_going_on_elsewhere_adds_a_line_and_going_on_here_does_not(tmp_path: Path) -> None:
    assert read_environments(tmp_path) == []
    here, there = {"processor": "one"}, {"processor": "another"}
    for environment in (here, here, there, there, here):
        append_environment(tmp_path, environment)
    assert read_environments(tmp_path) == [here, there, here]


MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 2**20


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/app/run\n", {}, MACHINE),
        ("0::/app/run\n", {"app/run/memory.max": "max", "app/memory.max": f"{5 * MIB}"}, 5 * MIB),
        ("0::/app/run\n", {"app/run/memory.max": f"{4 * MIB}", "app/memory.max": f"{5 * MIB}"}, 4 * MIB),
        ("0::/../other\n", {"memory.max": f"{6 * MIB}"}, 6 * MIB),
        (
            "5:cpu,cpuacct:/\n9:memory:/docker/12ab\n",
            {"memory/docker/12ab/memory.limit_in_bytes": f"{7 * MIB}", "memory/memory.limit_in_bytes": f"{2**63}"},
            7 * MIB,
        ),
        ("9:memory:/docker/12ab\n", {"memory/memory.limit_in_bytes": f"{8 * MIB}"}, 8 * MIB),
    ],
    ids=["no limit", "a parent's", "the least", "inside a container", "v1", "v1 inside a container"],
)
def test_memory_is_what_the_cgroups_leave_of_the_machine(
    tmp_path: Path, membership: str, limits: dict[str, str], expected: int
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, value in limits.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert find_memory_limit_bytes(tmp_path / "cgroup", tmp_path / "membership") == expected


def test_without_cgroups_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    assert find_memory_limit_bytes(tmp_path / "absent", tmp_path / "absent") == MACHINE
