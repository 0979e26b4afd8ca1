"""Commands whose output is kept, and which leave nothing behind when this process is stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class CommandError(Exception):
    """A command failed; says with what, and what it printed."""


def seal(command: Sequence[str]) -> tuple[str, ...]:
    """Give a command processes and mounts of its own, all of which end with it; takes root."""
    return ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child", *command)


def attempt(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.kill()
            process.communicate()  # until all that it started has closed its ends
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run(command: Sequence[str]) -> str:
    """Run a command; returns what it printed.

    Raises:
        CommandError: it failed.
    """
    done = attempt(command)
    if done.returncode:
        raise CommandError(f"{' '.join(command)} failed with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()
