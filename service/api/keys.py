"""The key file: who may ask, by the SHA-256 of their keys.

A key has 256 random bits, so nobody can guess it from its hash: a slow hash, as passwords need, would only cost time.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from service.files import open_regular

KEY_PREFIX = "uh_"
_KEY_BYTES = 32
_MAX_FILE_BYTES = 1_000_000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# Who can write the file can admit anybody; who can read it learns ids and hashes.
_OTHERS_MAY = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH


class KeyFileError(Exception):
    """A key file cannot be used; says why in one sentence, which quotes no word that might be a key."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one file.

    Attributes:
        hashes: SHA-256 of each key, by id; compared and shown in the file's order.
    """

    hashes: dict[str, bytes] = field(default_factory=dict)

    def find(self, presented: bytes) -> str | None:
        """Return the id of the key that was presented; None if it is none of these.

        All are compared, each in constant time, so that how long it takes says nothing about any of them.
        """
        digest, found = hashlib.sha256(presented).digest(), None
        for name, known in self.hashes.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def __str__(self) -> str:
        return ", ".join(self.hashes)


def make_key() -> str:
    """Make a new key."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def hash_key(key: str) -> str:
    """Hash a key as the key file has it: SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_id(name: str) -> str:
    """Return an id that may stand in a key file.

    Raises:
        ValueError: it may not.
    """
    if name.startswith(KEY_PREFIX):
        raise ValueError(f"begins with {KEY_PREFIX}, as keys do, and ids are logged")
    if not _ID.fullmatch(name):
        raise ValueError("is not 1 to 64 letters, digits, dots, dashes or underscores")
    return name


def read_keys(path: Path) -> tuple[Keys, str]:
    """Read a key file.

    Returns:
        The keys, and a warning in one sentence if others may read or write the file; else an empty one.

    Raises:
        KeyFileError: it cannot be read, has a line that is wrong, or holds no key.
    """
    if path.name.startswith(KEY_PREFIX):
        raise KeyFileError(f"the path of the key file begins with {KEY_PREFIX}: the setting takes a file, not a key")
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 - of a descriptor
            content, mode = file.read(_MAX_FILE_BYTES + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise KeyFileError(f"{path}: the key file cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise KeyFileError(f"{path}: the key file has more than {_MAX_FILE_BYTES} bytes")
    try:
        keys = parse_keys(content)
    except ValueError as error:
        raise KeyFileError(f"{path}: {error}") from error
    if not keys.hashes:
        raise KeyFileError(f"{path} holds no key; `unihead-serve key new --file {path}` makes one")
    others_may = mode & _OTHERS_MAY
    return keys, f"{path}: others may read or write the key file; chmod 600 {path}" if others_may else ""


def parse_keys(content: bytes) -> Keys:
    """Read lines of `ID SHA256`; comments begin with #.

    Raises:
        ValueError: names the line that is wrong.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("the key file is no UTF-8 text") from error
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name, digest = _parse_line(words)
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from error
        if name in hashes or digest in hashes.values():
            raise ValueError(f"line {number} has the same {'id' if name in hashes else 'key'} as a line before it")
        hashes[name] = digest
    return Keys(hashes)


def _parse_line(words: list[str]) -> tuple[str, bytes]:
    if any(word.startswith(KEY_PREFIX) for word in words[1:]):
        raise ValueError("has a key; the file takes the SHA-256 of it, as `unihead-serve key new` prints it")
    try:
        name = check_id(words[0])
    except ValueError as error:
        raise ValueError(f"has an id that {error}") from error
    match words:
        case [_, digest] if _SHA256.fullmatch(digest):
            return name, bytes.fromhex(digest)
    raise ValueError("is not an id and a SHA-256 of 64 hexadecimal digits, separated by a space")


def append_key(path: Path, name: str, sha256: str) -> None:
    """Add a line to a key file; a file that is not there is made, for its owner alone.

    Raises:
        KeyFileError: the file cannot be written, has a line that is wrong, or the id is taken.
    """
    try:
        handle = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        with open(handle, "r+b", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            fcntl.flock(file, fcntl.LOCK_EX)
            content = file.read(_MAX_FILE_BYTES)
            if name in parse_keys(content).hashes:
                raise KeyFileError(f"{path} has a key with the id {name}; choose another with --id")
            break_line = b"" if not content or content.endswith(b"\n") else b"\n"
            file.write(break_line + f"{name} {sha256}\n".encode())
            os.fsync(file.fileno())
    except ValueError as error:
        raise KeyFileError(f"{path}: {error}") from error
    except OSError as error:
        raise KeyFileError(f"{path}: the key file cannot be written: {error.strerror}") from error
