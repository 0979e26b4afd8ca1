import subprocess
import sys
from pathlib import Path

import pytest

BLOCK_TORCH = "import sys; sys.modules['torch'] = None; from {package}.__main__ import main; main()"


@pytest.mark.parametrize("package", ["training", "export"])
def test_without_torch_a_command_says_what_to_install(package: str) -> None:
    command = [sys.executable, "-c", BLOCK_TORCH.format(package=package)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch is not installed; pip install 'unihead[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("package", "words"), [("training", "seed, tiny"), ("export", "parity")])
def test_help_is_there_as_a_module_too(package: str, words: str) -> None:
    command = [sys.executable, "-m", package, "run" if package == "training" else "--help", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
