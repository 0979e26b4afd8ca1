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
_MMAP_THRESHOLD_BYTES = 32 * 2**20  # the most that glibc takes
_TRIM_THRESHOLD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc not to give the memory of every picture back to the system, which would be faulted in again at once.

    Twice as fast resizing (docs/experiments.md); costs up to 64 MiB that stay resident. Returns False, and changes
    nothing, where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, as musl
        return False
    done = bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )
    logger.debug("freed memory is %s", "kept" if done else "given back")
    return done


def give_back_freed_memory() -> None:
    """Return what is free to the system all the same: after something large and rare, as a model that was replaced."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
