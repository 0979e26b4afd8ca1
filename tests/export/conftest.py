from pathlib import Path

import pytest
import torch

from export.to_onnx import export_onnx
from service.engine.contract import ModelContract
from service.engine.golden import GOLDEN_PICTURES
from tests.training.fakes import make_branches_config
from tests.training.make_sets import write_tiny_sets
from training.checkpoint import Checkpoint
from training.config import Config, load_config
from training.data.taxonomy import MINI
from training.models.multitask import build_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two threads of a tiny network wait for each other for seconds on a busy machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sets(tmp_path_factory.mktemp("tiny_sets"))


@pytest.fixture(scope="session")
def finished() -> Checkpoint:
    """A checkpoint as a finished run of `tiny` leaves it; its weights are random, which parity does not mind."""
    return make_finished(load_config("tiny"))


@pytest.fixture(scope="session")
def finished_branches() -> Checkpoint:
    """The same with pyramid and branches, and more candidates than NMS looks at."""
    return make_finished(make_branches_config(inference={"max_candidates": 120}))


@pytest.fixture(scope="session")
def exported_branches(
    finished_branches: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelContract]:
    """`finished_branches` as an ONNX file, and its contract as the export gives it; not to be changed."""
    out = tmp_path_factory.mktemp("branches") / "model.onnx"
    return out, export_onnx(finished_branches, out, golden=GOLDEN_PICTURES)


def make_finished(config: Config) -> Checkpoint:
    torch.manual_seed(0)
    model = build_model(config.model, MINI.num_classes)
    metrics = {"segmentation": {"mean_iou": 0.25}, "detection": {"map_50": 0.5}, "classification": {"top_1": 0.75}}
    return Checkpoint(
        config=config.model_dump(mode="json"),
        git_commit="0123456789ab",
        model=model.state_dict(),
        stage=len(config.stages),
        history=[{"kind": "evaluation", "stage": "classification", "metrics": metrics, "seconds": 1.0}],
        taxonomy=MINI,
    )
