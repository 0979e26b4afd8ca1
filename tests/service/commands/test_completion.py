from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main as serve
from service.commands.completion import SHELLS
from service.commands.predict import main as predict

COMMANDS: dict[str, Callable[[list[str]], None]] = {"unihead-predict": predict, "unihead-serve": serve}
ASK_BASH = """
source "$1"
asked=$(complete -p "$2" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("${@:2}"); COMP_CWORD=$(($# - 2)); $asked; printf '%s\\n' "${COMPREPLY[@]}"
"""


def write_script(capsys: pytest.CaptureFixture[str], command: str, shell: str) -> str:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](["--print-completion", shell])
    assert stop.value.code in {None, 0}
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(capsys: pytest.CaptureFixture[str], command: str, shell: str) -> None:
    script = write_script(capsys, command, shell)
    assert command in script
    assert ("score-threshold" if command == "unihead-predict" else "queue-limit") in script


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["unihead-predict", "--over"], {"--overlay"}),
        (["unihead-predict", "--mask", ""], {"rle", "none"}),
        (["unihead-predict", ""], {"photo.jpg", "folder"}),
        (["unihead-predict", "a", "--out", ""], {"folder"}),
        (["unihead-serve", "re"], {"reload"}),
        (["unihead-serve", "--log-format", ""], {"auto", "json", "text"}),
        (["unihead-serve", "--model", "ph"], {"photo.jpg"}),
    ],
)
def test_bash_completes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], completed: set[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script, here = tmp_path / "script", tmp_path / "here"
    script.write_text(write_script(capsys, words[0], "bash"))
    here.mkdir()
    (here / "photo.jpg").touch()
    (here / "folder").mkdir()
    asked = [bash, "-c", ASK_BASH, "bash", str(script), *words]
    done = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == completed, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_without_shtab_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](["--print-completion", "bash"])
    assert stop.value.code == 2
    assert "pip install 'unihead[completion]'" in capsys.readouterr().err
