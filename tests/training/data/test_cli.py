import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.training.data.doctor.clean_sets import write_clean_sets
from tests.training.data.doctor.plants import in_annotation, upside_down
from tests.training.make_sets import write_tiny_sets
from training.data.cli import main

WITHOUT_TORCH = """
import sys

for name in ("torch", "torchvision", "rich", "typer", "matplotlib"):
    sys.modules[name] = None  # makes `import name` raise ModuleNotFoundError

from training.data.cli import main

main(sys.argv[1:])
"""


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    return write_clean_sets(tmp_path / "sets")


def test_the_module_can_be_run_where_the_command_is_not_installed(sets: Path) -> None:
    command = [sys.executable, "-m", "training.data.cli", "doctor", str(sets)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (told.returncode, told.stderr) == (0, "")
    assert "0 errors" in told.stdout


def test_the_doctor_exits_0_on_clean_sets(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", sets) == 0
    assert "kinds of findings: 0 errors, 0 warnings" in capsys.readouterr().out


def test_the_doctor_exits_0_on_warnings(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((sets / "imagenette_160" / "train").glob("*/*.JPEG"))
    body = path.read_bytes()
    exif = upside_down().tobytes()
    path.write_bytes(body[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + body[2:])
    assert exit_code("doctor", sets) == 0
    assert "warning exif-rotated-picture (1)" in capsys.readouterr().out


def test_the_doctor_exits_1_on_errors_and_names_three_examples(capsys: pytest.CaptureFixture[str], sets: Path) -> None:
    in_annotation(bbox=[90, 10, 20, 20])(sets)
    for path in sorted((sets / "mini_voc_seg" / "train").glob("*.png"))[:4]:
        path.unlink()
    assert exit_code("doctor", sets) == 1
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("error missing-mask (4): A picture has no mask.")
    assert [line.split(":")[0].strip() for line in lines[start + 1 : start + 4]] == [
        f"mini_voc_seg/train/2007_train_{number:03d}.jpg" for number in range(3)
    ]
    assert lines[start + 4].strip() == "and 1 more"
    assert any(line.startswith("warning box-outside-picture (1, repaired") for line in lines)


def test_json_is_one_document_with_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", write_tiny_sets(tmp_path / "sets"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    findings = {finding["code"]: finding for finding in document["findings"]}
    assert (document["has_errors"], document["has_warnings"]) == (False, True)
    assert findings["category-ids-differ"]["count"] == len(findings["category-ids-differ"]["cases"]) == 3
    assert findings["crowd-box"]["severity"] == "warning"
    assert findings["crowd-box"]["repaired"] is True
    assert set(findings["crowd-box"]["cases"][0]) == {"where", "detail"}


def test_strict_exits_1_on_warnings(tmp_path: Path, sets: Path) -> None:
    assert exit_code("doctor", sets, "--strict") == 0
    assert exit_code("doctor", write_tiny_sets(tmp_path / "tiny"), "--strict") == 1


def test_html_writes_a_page(sets: Path, tmp_path: Path) -> None:
    assert exit_code("doctor", sets, "--html", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_folder_without_data_is_refused_with_the_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", tmp_path) == 2
    assert "neither it nor a folder in it is a data set; wanted one of" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "prepare", "show"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    assert f"unihead-data {command}" in capsys.readouterr().out


def test_the_doctor_runs_without_torch(sets: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "doctor", str(sets), "--html", str(tmp_path / "page.html")]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
