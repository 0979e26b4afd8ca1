import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.checkout import ROOT
from tests.repository.documents import write_commands

NOTEBOOK = ROOT / "docs/from_folders_to_service.ipynb"


def read_notebook() -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # it has none
    return notebook


def test_the_notebook_is_kept_without_outputs() -> None:
    code = [cell for cell in read_notebook().cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's own libraries
def test_the_notebook_goes_from_folders_to_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_commands(tmp_path / "bin")
    monkeypatch.setenv(
        "PATH", os.pathsep.join((str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads of a tiny network only wait for each other
    for name in [name for name in os.environ if name.startswith("UNIHEAD_")]:
        monkeypatch.delenv(name)
    notebook = read_notebook()
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert "parity holds" in said
    assert "tiny-" in said
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
