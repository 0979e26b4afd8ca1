"""Runs `unihead-data` in this process."""

from pathlib import Path

import pytest

from training.data.cli import main


def run_data(*arguments: str | Path) -> int:
    """Run a command; gives its exit code back."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code
