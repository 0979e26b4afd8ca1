"""`unihead-serve key`: make keys, which are shown once, and their lines for the key file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from service.api.keys import KeyFileError, append_key, check_id, hash_key, make_key

_PROGRAM = "unihead-serve key"
_DESCRIPTION = """Keys of those who may ask the service.

A key is 256 random bits, written as uh_ and 43 letters. It is shown once, when it is made: the key file
holds its SHA-256 only, one line for each key, ID SHA256. Lines may be commented out or deleted; # begins a
comment. The id is what the log calls whoever brings the key."""
_EPILOG = """a first key, and a service that asks for it:
  umask 077
  unihead-serve key new --id phone --file unihead.keys > phone.key
  unihead-serve --keys unihead.keys --pid-file unihead.pid &
  curl -H "Authorization: Bearer $(cat phone.key)" --data-binary @photo.jpg localhost:8000/predict

another in its place, without a restart:
  unihead-serve key new --id phone-2 --file unihead.keys > phone-2.key
  unihead-serve reload --pid-file unihead.pid --key-file phone.key       # both are in force now
  sed -i '/^phone /d' unihead.keys                                       # once nobody uses the old one
  unihead-serve reload --pid-file unihead.pid --key-file phone-2.key     # the old one is dead now"""


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    options = _parse(words)
    key = make_key()
    sha256 = hash_key(key)
    name = options.id or f"key-{sha256[:8]}"
    if options.file is None:
        print(key)
        print(f"{name} {sha256}")
        print("The first line is the key, not shown again; the second belongs into the key file.", file=sys.stderr)
        return 0
    try:
        append_key(options.file, name, sha256)  # first: a key that is shown is in the file
    except KeyFileError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 1
    print(key)
    print(f"{options.file} lets it in as {name}. This is the key, not shown again.", file=sys.stderr)
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(_PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=layout)
    commands = parser.add_subparsers(title="commands", required=True, metavar="")
    new = commands.add_parser(
        "new",
        help="make a key; it goes to stdout, and everything else to stderr",
        description="Make a key and print it, with its line for the key file unless --file gets that.",
    )
    new.add_argument("--id", type=_id, help="what the log calls it (default: key- and the beginning of its hash)")
    new.add_argument("--file", type=Path, help="key file that gets the line; made, for its owner alone, if need be")
    return parser.parse_args(words)


def _id(text: str) -> str:
    try:
        return check_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it {error}") from error
