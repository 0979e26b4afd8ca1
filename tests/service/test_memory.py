from __future__ import annotations

import subprocess
import sys

import pytest

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
