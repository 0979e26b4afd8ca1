import re
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from export.parity import compare_engines
from export.to_onnx import export_onnx
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES
from tests.training.fakes import make_branches_config, make_images, make_model
from training.checkpoint import Checkpoint
from training.config import Config, ModelConfig, Task
from training.data.taxonomy import MINI
from training.inference import build_engine
from training.models.branches import Branches
from training.models.folding import FoldedDetection, fold_gates
from training.models.multitask import MultiTaskModel
from training.models.routing import TaskGate

READS_A_LEVEL = re.compile(r"(refine|_tower\.0)\.0\.weight$")


def make_gated_config(**changes: object) -> Config:
    config = make_branches_config()
    model = config.model.model_dump() | {"routing": "static"} | changes
    return config.model_copy(update={"model": ModelConfig.model_validate(model)})


@torch.no_grad()
def make_gated(**changes: object) -> MultiTaskModel:
    """A network in evaluation mode whose gates, batch-norms and scales of levels all say something."""
    model = make_model(make_gated_config(**changes).model)
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, TaskGate):
            for parameter in module.parameters():
                nn.init.normal_(parameter)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            module.momentum = None  # the statistics of the batch below: what goes through the network does not fade
    model.get_parameter("head.detection.scales").copy_(torch.tensor([0.5, 1.0, 2.0]))
    model.train()(make_images(4, seed=2))
    return model.eval()


def count_gates(model: nn.Module) -> int:
    return sum(isinstance(module, TaskGate) for module in model.modules())


@torch.no_grad()
def assert_same_answers(one: MultiTaskModel, other: MultiTaskModel) -> None:
    images = make_images(2)
    for first, second in zip(one(images), other(images), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"neck": "pan", "kernel_size": 5},
        {"detection_depth": 1},
        {"segmentation_skip": "s4"},
        {"segmentation": "lraspp"},
    ],
    ids=str,
)
def test_a_folded_network_has_no_gates_and_answers_the_same(changes: dict[str, object]) -> None:
    model = make_gated(**changes)
    folded = fold_gates(model)
    assert (count_gates(model), count_gates(folded)) == (2, 0)
    assert_same_answers(model, folded)


@torch.no_grad()
def test_the_gates_of_these_tests_matter() -> None:
    model, images = make_gated(), make_images(1)
    logits = model(images)
    for gate in (module for module in model.modules() if isinstance(module, TaskGate)):
        gate.level_logits.zero_()
        gate.channel_logits.zero_()
    without = model(images)
    assert (logits.segmentation - without.segmentation).abs().max() > 0.1
    moved = (logits.detection - without.detection).abs()
    assert [part.max() > 0.1 for part in moved.split([8 * 8, 4 * 4, 2 * 2], dim=1)] == [True] * 3


def test_folding_leaves_the_network_as_it_was() -> None:
    model = make_gated()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold_gates(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_only_the_first_convolutions_are_there_once_a_level() -> None:
    model = make_gated()
    assert isinstance(model.head, Branches)
    gates = sum(parameter.numel() for parameter in model.head.gates.parameters())
    firsts = sum(model.get_parameter(f"head.detection.{tower}_tower.0.0.weight").numel() for tower in ("score", "box"))
    folded = fold_gates(model)
    assert isinstance(folded.head.detection, FoldedDetection)
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (model, folded)]
    assert counts[1] == counts[0] - gates + 2 * firsts


def test_a_dynamic_gate_stays() -> None:
    model = make_gated(routing="dynamic")
    folded = fold_gates(model)
    assert count_gates(folded) == 2
    assert_same_answers(model, folded)


def test_a_network_without_gates_stays_as_it_is() -> None:
    for model in (make_gated(routing="none"), make_model().eval()):
        assert fold_gates(model).state_dict().keys() == model.state_dict().keys()
        assert_same_answers(model, fold_gates(model))


@pytest.mark.slow
def test_the_exported_file_answers_as_the_network_and_reads_levels_without_gates(tmp_path: Path) -> None:
    config, model = make_gated_config(), make_gated()
    metrics = {str(task): {"metric": 0.5} for task in Task}
    checkpoint = Checkpoint(
        config.model_dump(mode="json"),
        "0123456789ab",
        model.state_dict(),
        stage=len(config.stages),
        history=[{"kind": "evaluation", "stage": "classification", "metrics": metrics, "seconds": 1.0}],
        taxonomy=MINI,
    )
    export_onnx(checkpoint, tmp_path / "model.onnx", golden=GOLDEN_PICTURES)
    reference = build_engine(model, config, MINI, torch.device("cpu"), git_commit="0123456789ab")
    squares = list(make_images(3).numpy())
    found = compare_engines(reference, load_engine(tmp_path / "model.onnx"), squares, batch_size=2)
    assert found.failures() == []

    graph = onnx.load(tmp_path / "model.onnx").graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    readers = [node for node in graph.node if node.op_type == "Conv" and READS_A_LEVEL.search(node.input[1])]
    # The mask reads one level, scores and boxes read three: all as the neck's last ReLU left them.
    assert [makers[node.input[0]] for node in readers] == ["Relu"] * 7
