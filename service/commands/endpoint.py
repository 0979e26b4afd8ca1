"""The service that a command asks: its address, the key that it wants, and a request, with the standard library alone.

A key comes from the environment or a file, because everybody can read the arguments of a process.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import UniheadError
from service.words import make_printable

KEY_VARIABLE = "UNIHEAD_KEY"
_MAX_CHARACTERS = 4096
_MAX_ANSWER_BYTES = 2**20
_ONE_WORD = re.compile(r"[\x21-\x7e]+")


class EndpointError(UniheadError):
    """A service does not answer as it should, or there is no key for it; a printable sentence, which quotes no key."""

    def __init__(self, sentence: str) -> None:
        super().__init__(make_printable(sentence))


def check_url(text: str) -> str:
    """Return the address of a service; for argparse."""
    place = urlsplit(text)
    if place.scheme != "http" or not place.hostname:
        raise argparse.ArgumentTypeError(f"{text!r}; it must look like http://127.0.0.1:8000")
    return text


@contextlib.contextmanager
def connect(url: str, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
    """Connect to a service for the length of a block.

    Raises:
        EndpointError: it does not answer what the block asks.
    """
    try:
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
        with contextlib.closing(connection):
            yield connection
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EndpointError(f"{url} does not answer: {error}") from error


def get(url: str, path: str, timeout_s: float, headers: Mapping[str, str]) -> bytes:
    """Return what a service has at a path.

    Raises:
        EndpointError: it does not answer with 200, within the time, and in no more bytes than an answer may have.
    """
    outcome: list[tuple[int, bytes] | EndpointError] = []

    def ask() -> None:
        try:
            with connect(url, timeout_s) as connection:
                connection.request("GET", f"{urlsplit(url).path.rstrip('/')}{path}", headers=headers)
                response = connection.getresponse()
                outcome.append((response.status, response.read(_MAX_ANSWER_BYTES + 1)))
        except EndpointError as error:
            outcome.append(error)

    # In another thread, because the timeout of a socket bounds each byte, and not the answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise EndpointError(f"{url} does not answer: timed out")
    if isinstance(outcome[0], EndpointError):
        raise outcome[0]
    status, body = outcome[0]
    if status == http.client.UNAUTHORIZED:
        raise EndpointError(explain_unauthorized(url))
    if status != http.client.OK:
        raise EndpointError(f"{url} is not ready: status {status}")
    if len(body) > _MAX_ANSWER_BYTES:
        raise EndpointError(f"{url} answers with more than {_MAX_ANSWER_BYTES} bytes")
    return body


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
        EndpointError: the environment has something else in the place of a key.
    """
    key = options.key_file or os.environ.get(KEY_VARIABLE, "").strip()
    if key and not _ONE_WORD.fullmatch(key):
        raise EndpointError(f"{KEY_VARIABLE} does not hold one key and nothing else")
    return key or None


def make_key_headers(options: argparse.Namespace) -> dict[str, str]:
    """Return the headers that bring the key of a command, see `find_key`; none if it has no key."""
    key = find_key(options)
    return {"Authorization": f"Bearer {key}"} if key else {}


def explain_unauthorized(url: str) -> str:
    """Say what the 401 of a service means, and what to do about it."""
    return f"{url} asks for a key, and was given none that it knows: set {KEY_VARIABLE}, or name a file with --key-file"


def _read_key(path: str) -> str:
    try:
        with Path(path).open(encoding="latin-1") as file:  # which takes any bytes
            content = file.read(_MAX_CHARACTERS).strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error.strerror}") from error
    if not _ONE_WORD.fullmatch(content):
        raise argparse.ArgumentTypeError(f"{path} does not hold one key and nothing else")
    return content
