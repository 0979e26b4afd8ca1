from __future__ import annotations

import subprocess
import sys

import pytest

# Minor page faults of the fiftieth picture that takes eight buffers: none where freed memory is kept.
COUNT_FAULTS = """
import resource, sys
import numpy as np
from service.memory import keep_freed_memory

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
