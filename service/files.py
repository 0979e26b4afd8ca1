"""Files that a setting names: regular ones, opened without waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file and return its descriptor; links are followed.

    Opening a FIFO waits for whoever writes into it, and a device may never end: what was opened is looked at, because
    another file may have come into its place since anybody looked before.

    Args:
        path: of the file.
        flags: as `os.open` takes them; a file that is made is for its owner alone.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says in words why.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, and has to be a regular file")
    except BaseException:
        os.close(handle)
        raise
    return handle
