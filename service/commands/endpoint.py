"""The key that a command brings to a service: from the environment or a file, because everybody can read arguments."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

KEY_VARIABLE = "UNIHEAD_KEY"
_MAX_CHARACTERS = 4096
_ONE_WORD = re.compile(r"[\x21-\x7e]+")


class PresentedKeyError(Exception):
    """There is no key that opens a service; says in one sentence what to do about it, without the key."""


def add_key_option(parser: argparse._ActionsContainer) -> None:
    """Let a command, or a group of its options, have a key, for `find_key` and `make_key_headers`."""
    parser.add_argument(
        "--key-file",
        type=_read_key,
        metavar="FILE",
        help=f"file that holds a key of the service and nothing else (default: the key in {KEY_VARIABLE}, if any)",
    )


def find_key(options: argparse.Namespace) -> str | None:
    """Return the key of a command; None if it has none.

    Raises:
        PresentedKeyError: the environment has something else in the place of a key.
    """
    key = options.key_file or os.environ.get(KEY_VARIABLE, "").strip()
    if key and not _ONE_WORD.fullmatch(key):
        raise PresentedKeyError(f"{KEY_VARIABLE} does not hold one key and nothing else")
    return key or None


def make_key_headers(options: argparse.Namespace) -> dict[str, str]:
    """Return the headers that bring the key of a command, see `find_key`; none if it has no key."""
    key = find_key(options)
    return {"Authorization": f"Bearer {key}"} if key else {}


def make_refusal(url: str) -> PresentedKeyError:
    """Say that a service has answered 401."""
    advice = f"set {KEY_VARIABLE}, or name a file with --key-file"
    return PresentedKeyError(f"{url} asks for a key, and has not been brought one that it knows: {advice}")


def _read_key(path: str) -> str:
    try:
        with Path(path).open(encoding="latin-1") as file:  # which takes any bytes
            content = file.read(_MAX_CHARACTERS).strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error.strerror}") from error
    if not _ONE_WORD.fullmatch(content):
        raise argparse.ArgumentTypeError(f"{path} does not hold one key and nothing else")
    return content
