"""`unihead-serve`: start the service, or ask a running one whether it is ready (`unihead-serve health`)."""

from __future__ import annotations

import argparse
import http.client
import os
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from service.versions import find_version

_PROGRAM = "unihead-serve"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the service is imported only to be started, so that `health` takes milliseconds."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["health"]:
        sys.exit(_ask_health(words[1:]))
    if words == ["--version"]:
        print(f"{_PROGRAM} {find_version('unihead')}")
        return
    from service.server import StartError, serve  # noqa: PLC0415 - takes most of a second

    try:
        serve(words)
    except StartError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        sys.exit(error.code)


def _ask_health(words: Sequence[str]) -> int:
    """Return 0 if the service at --url is ready, else 1 and say why; for the HEALTHCHECK of a container."""
    parser = argparse.ArgumentParser(f"{_PROGRAM} health", description="Exit 0 if the service is ready, 1 if not.")
    default = f"http://127.0.0.1:{os.environ.get('UNIHEAD_PORT', '8000')}"
    parser.add_argument("--url", default=default, help="of the service (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="seconds to wait (default: %(default)s)")
    options = parser.parse_args(words)
    try:
        place = urlsplit(options.url)
        if place.scheme != "http" or not place.hostname:
            parser.error(f"--url is {options.url!r}; it must look like http://127.0.0.1:8000")
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=options.timeout_s)
        connection.request("GET", f"{place.path.rstrip('/')}/readyz")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{options.url} does not answer: {error}", file=sys.stderr)
        return 1
    if status != http.client.OK:
        print(f"{options.url} is not ready: status {status}", file=sys.stderr)
        return 1
    return 0
