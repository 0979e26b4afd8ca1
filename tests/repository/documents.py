"""Fenced blocks of the documents: what they hold, and how those that can run are run."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "service/models/README.md")
)
# What runs a block in a language that the package has nothing to do with, where that is installed.
PROGRAMS = {"typescript": "node", "go": "go"}
RUN = {"bash", "python", *PROGRAMS}
DATA = {"json", "yaml", "toml"}
LANGUAGES = RUN | DATA | {"promql", "text"}
# Why a block may stay unrun; `<!-- not run: docker -->` before it says so.
REASONS = {
    "benchmark": "takes from minutes to an hour, and programs of its own",
    "cluster": "needs Kubernetes or Ray on several machines",
    "docker": "needs an engine for containers",
    "download": "needs gigabytes from other servers",
    "gpu": "needs a GPU",
    "installation": "installs packages",
    "torch": "installs torch, 6 GB",
    "training": "trains for from minutes to hours",
}
GOLDEN = ROOT / "service/models/golden"
TIMEOUT_S = 150
_MARK = re.compile(r"<!-- not run: (\w+) -->")
_SHARED = re.compile(r"(?:localhost|127\.0\.0\.1):8000")
# A line that starts a service, and does not only ask one.
_START = re.compile(
    r"^((?:\w+=\S+ )*unihead-serve(?! (?:health|reload|key|selftest|bench|--help|--version)\b)[^&#\n]*?)"
    r" *&? *(?:#.*)?$",
    re.MULTILINE,
)
_PRELUDE = """
set -euo pipefail
trap 'jobs -p | xargs -r kill 2>/dev/null || true; wait' EXIT
await_service() {
    until curl --silent --output /dev/null "localhost:$UNIHEAD_PORT/readyz"; do kill -0 "$1"; sleep 0.1; done
}
ask() { curl --silent --show-error --fail-with-body "$@"; }
# It exits with 1 where it finds faults, and the small sets have some on purpose.
unihead-data() { command unihead-data "$@" || [[ $1 = doctor && $? = 1 ]]; }
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        document: its file, relative to the root.
        line: of its opening fence, from 1.
        language: behind the fence, empty where there is none.
        text: between the fences.
        reason: why it is not run, where a mark says so.
    """

    document: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def read_blocks(document: Path, text: str | None = None) -> list[Block]:
    """All fenced blocks of a document, in their order."""
    blocks: list[Block] = []
    collected: list[str] = []
    opening: tuple[int, str] | None = None
    reason: str | None = None
    lines = (text if text is not None else (ROOT / document).read_text(encoding="utf-8")).splitlines()
    for number, line in enumerate(lines, start=1):
        if opening is None and line.lstrip().startswith("```"):
            opening, collected = (number, line.strip().removeprefix("```")), []
        elif opening is not None and line.strip() == "```":
            blocks.append(Block(document, *opening, "\n".join(collected), reason))
            opening = reason = None
        elif opening is not None:
            collected.append(line)
        elif found := _MARK.fullmatch(line.strip()):
            reason = found[1]
        elif line.strip():
            reason = None
    return blocks


def write_commands(folder: Path) -> None:
    """The package's commands as files that run this checkout, whatever is installed."""
    folder.mkdir()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, place in scripts.items():
        module, function = place.split(":")
        path = folder / name
        path.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        path.chmod(0o755)


def is_runnable(block: Block) -> bool:
    """Whether what runs its language is here."""
    program = PROGRAMS.get(block.language)
    return program is None or shutil.which(program) is not None


def run_block(block: Block, folder: Path, commands: Path, port: int) -> None:
    """Run one block in a folder, beside a service on `port`, which is asked where the block says port 8000.

    A block that starts a service of its own gets a port of its own.
    """
    own = block.language == "bash" and _START.search(block.text) is not None
    if own:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    text = _SHARED.sub(f"127.0.0.1:{port}", block.text)
    if block.language == "bash":
        text = re.sub(r"\bcurl\b", "ask", text)
        text = _PRELUDE + _START.sub(r"\1 &\nawait_service $!", text)
        command = [shutil.which("bash") or "bash", "-c", text]
    elif block.language == "typescript":  # without types, so that it is JavaScript, too
        command = ["node", "--input-type=module", "--eval", text]
    elif block.language == "go":
        (folder / "main.go").write_text(text)
        command = ["go", "run", "main.go"]
    else:
        command = [sys.executable, "-c", text]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNIHEAD_")}
    environment |= {
        "PATH": os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",  # threads of a tiny network only wait for each other
        "UNIHEAD_PORT": str(port),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{block} ends with {done.returncode}:\n{text}\n{done.stdout}{done.stderr}"
