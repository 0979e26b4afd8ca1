from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def without_wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The switch: an environment whose Python finds no fast_image_resize, as on 64-bit Arm."""
    folder = tmp_path_factory.mktemp("without_wheel")
    (folder / "cykooz_resizer.py").write_text("raise ImportError('no wheel for this machine')\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
