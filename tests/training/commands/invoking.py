"""`unihead-train` in this process, and how it is to fail."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from training.cli import app

WIDE = {"COLUMNS": "1000", "UNIHEAD_BACKBONE_WEIGHTS": "", "UNIHEAD_DATA": ""}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=WIDE)


def run_tiny(data: Path, out: Path, *more: str) -> Result:
    return invoke("run", "--preset", "tiny", "--data", data, "--out", out, "--device", "cpu", *more)


def resume(data: Path, out: Path, *more: str) -> Result:
    return invoke("run", "--data", data, "--out", out, "--device", "cpu", "--resume", *more)


def assert_one_sentence(result: Result, *words: str) -> None:
    """Exit 1; the last line on standard error holds the words; before it only the doctor speaks; no traceback."""
    assert result.exit_code == 1, result.output
    *before, line = result.stderr.splitlines()
    assert line.startswith("unihead-train: ")
    assert all(text.startswith(("error ", "warning ", "    ")) for text in before), before
    assert all(word in line for word in words), line
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
