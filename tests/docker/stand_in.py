"""A stand-in for a `python:3.x-slim` base image, made of Debian packages, for machines that reach no image registry.

It has Debian's Python of the same release in place of the one in the tag. What is built on it shows that the
Dockerfile's steps, paths, user and runtime hold; the base itself it does not show.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from pathlib import Path

from tests.docker.process import run, seal

PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

# pip and python where the real base has them, free to install and to be uninstalled.
_SET_UP = """
set -eu
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
set -- /usr/share/python-wheels/pip-*.whl
PYTHONPATH=$1 python3 -m pip --isolated --quiet install --no-index --root-user-action ignore "$1"
ln -s ../../bin/python3 /usr/local/bin/python
ln -s ../../bin/python3 /usr/local/bin/python3
"""


def make_stand_in(base: str, cache: Path) -> Path:
    """Make the root file system of a stand-in, unless the cache has it.

    Args:
        base: image name whose tag ends with a Debian release, as in "python:3.12-slim-bookworm".
        cache: folder that keeps it between runs.

    Returns:
        A tar archive.

    Raises:
        CommandError: a command fails.
    """
    suite = base.rpartition("-")[2]
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=python3-venv,ca-certificates",
        f'--customize-hook=chroot "$1" sh -c {shlex.quote(_SET_UP)}',
        suite,
    ]
    recipe = hashlib.sha256("\0".join(command).encode()).hexdigest()[:12]
    made = cache / f"{suite}-{recipe}.tar"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = made.with_suffix(".unfinished.tar")
        with tempfile.TemporaryDirectory(prefix="unihead-base-") as folder:
            Path(folder).chmod(0o755)  # apt downloads as a user without rights
            try:
                run(seal(["env", f"TMPDIR={folder}", *command, str(unfinished), *_find_mirrors(suite)]))
                unfinished.rename(made)
            finally:
                unfinished.unlink(missing_ok=True)
    return made


def _find_mirrors(suite: str) -> list[str]:
    """Lines of a sources.list: where this machine gets that release from; none if it is another one's."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    lines = run(command).splitlines()
    return [f"deb {line}" for line in lines if line.split()[1] in {suite, f"{suite}-updates", f"{suite}-security"}]
