"""Entry point of `unihead-export`: one sentence when only the service is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `export.cli`."""
    try:
        from export.cli import main as run  # noqa: PLC0415 - so that a missing package can be told in words
    except ModuleNotFoundError as error:
        sys.exit(f"unihead-export: {error.name} is not installed; pip install 'unihead[train]' brings it")
    run()


if __name__ == "__main__":
    main()
