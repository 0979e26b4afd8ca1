"""From data as people have it to a served model with their own names, each step as a stranger takes it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.commands.spawn import spawn_service
from tests.outside import choose_size
from tests.repository.documents import GOLDEN
from tests.training.data.layouts.odd_boxes import Document, coco, roboflow, voc, yolo
from tests.training.data.layouts.odd_others import folders, masks

pytestmark = pytest.mark.slow

NAMES = ("dent", "rust", "scratch")
PATHS = {"segment": "segments", "detect": "detections", "classify": "classes"}


def run(module: str, *words: str | Path) -> str:
    """Run a command's `main` as its entry point does; gives what it printed, and fails with it."""
    command = [sys.executable, "-c", f"from {module} import main; main()", *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("UNIHEAD_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def own_names(document: Document, _folder: Path) -> None:
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    document["annotations"][-1]["category_id"] = 3


def own_names_of_roboflow(document: Document, folder: Path) -> None:
    roboflow(document, folder)
    document["categories"] = [{"id": 0, "name": "faults", "supercategory": "none"}] + [
        {"id": number, "name": name, "supercategory": "faults"} for number, name in enumerate(NAMES, start=1)
    ]


def write_yolo(root: Path) -> None:
    yolo(root)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {list(NAMES)}\n")
    for number, label in enumerate((root / "labels" / "train").glob("*.txt")):
        label.write_text(f"{number} 0.5 0.5 0.2 0.2\n")


def write_voc(root: Path) -> None:
    voc((5, 5, 30, 30))(root)
    for number, path in enumerate(sorted((root / "VOCdevkit" / "VOC2012" / "Annotations").glob("*.xml"))):
        path.write_text(path.read_text().replace("<name>dog</name>", f"<name>{NAMES[number % 3]}</name>"))


def write_binary_masks(root: Path) -> None:
    masks((0, 255))(root / "masks")
    (root / "data.toml").write_text(
        '[[source]]\ntask = "segmentation"\npath = "masks"\nvalues = { 0 = "background", 255 = "rust" }\n'
    )


def write_all_three(root: Path) -> None:
    write_yolo(root / "detection")
    folders(classes=NAMES)(root / "classification")
    masks((0, 1, 2, 3))(root / "segmentation")
    (root / "segmentation" / "classes.txt").write_text("\n".join(("background", *NAMES)))


CASES: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "boxes as COCO JSON": (coco(own_names), ".", ("detect",)),
    "boxes of Roboflow": (
        coco(own_names_of_roboflow, splits=("train", "valid"), listing="{split}/_annotations.coco.json", pictures=""),
        ".",
        ("detect",),
    ),
    "boxes as YOLO txt": (write_yolo, ".", ("detect",)),
    "boxes as VOC XML": (write_voc, ".", ("detect",)),
    "class folders": (folders(classes=NAMES), ".", ("classify",)),
    "masks of 0 and 255": (write_binary_masks, "data.toml", ("segment",)),
    "all three": (write_all_three, ".", ("segment", "detect", "classify")),
}


# Each trains for some seconds and starts a service: one of them in `make test`, three in CI, all in `make test-all`.
QUICK = "boxes as YOLO txt"
OTHERS = sorted(set(CASES) - {QUICK})[: choose_size(len(CASES), 2)]


@pytest.mark.parametrize("case", [QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in OTHERS)])
def test_own_data_becomes_a_served_model_with_own_names(case: str, tmp_path: Path) -> None:
    write, entry, tasks = CASES[case]
    write(tmp_path / "mine")
    data, out = tmp_path / "mine" / entry, tmp_path / "run"
    shown = run("training.data.cli", "show", data)
    served = ("rust",) if entry == "data.toml" else NAMES
    assert all(name in shown for name in served)
    run("training.data.cli", "doctor", data)
    run("training.cli", "run", "--preset", "tiny", "--data", data, "--out", out, "--device", "cpu")
    model = tmp_path / "mine.onnx"
    run("export.cli", "onnx", "--checkpoint", out / "checkpoint.pt", "--out", model)
    run("export.cli", "parity", "--checkpoint", out / "checkpoint.pt", "--model", model, "--data", data)
    with spawn_service(["--model", str(model), "--log-level", "error"]) as service:
        body = (GOLDEN / "coffee.jpg").read_bytes()
        assert httpx.get(f"{service.url}/info").json()["contract"]["tasks"] == list(tasks)
        for task, part in PATHS.items():
            query = {"detect": "?score_threshold=0", "classify": "?top_k=9"}.get(task, "")
            response = httpx.post(f"{service.url}/{task}{query}", content=body, timeout=30)
            if task not in tasks:
                assert (response.status_code, response.json()["code"]) == (404, "task_not_served")
                continue
            assert response.status_code == 200, response.text
            found = {one["label"] for one in response.json()[part]}
            assert found <= {"background", *served}
            assert found or task == "detect"  # a network of some seconds may find no box at all
