"""Entry point of `unihead-train`: one sentence when only the service is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `training.cli`."""
    try:
        from training.cli import main as run  # noqa: PLC0415 - so that a missing package can be told in words
    except ModuleNotFoundError as error:
        sys.exit(f"unihead-train: {error.name} is not installed; pip install 'unihead[train]' brings it")
    run()


if __name__ == "__main__":
    main()
