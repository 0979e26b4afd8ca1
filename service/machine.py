"""How the C library keeps memory: pictures come and go, so what one leaves behind is for the next."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys

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
