"""A file that serves some of the tasks: its contract, its outputs, its golden answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.engine.contract import MODEL_TASKS, ModelTask, parse_contract
from service.engine.engine import Engine, load_engine
from service.engine.golden import answer_golden, check_golden
from service.errors import ContractError
from service.errors import TaskNotServed as NotServed
from service.rollout.loading import load_live
from service.settings import Settings
from tests.service.fakes import FakeSession, make_contract, make_picture
from tests.service.subsets import outputs_of


def test_a_file_is_loaded_by_its_own_tasks(model_of_tasks: Path, tasks: tuple[ModelTask, ...]) -> None:
    engine = load_live(Settings(model=model_of_tasks), must_carry_answers=True)
    assert engine.contract.tasks == tasks
    assert list(engine.contract.output_shapes) == outputs_of(tasks)
    (found,), (whole,) = (
        one.predict([make_picture(32, 32)]) for one in (engine, Engine(FakeSession(), make_contract()))
    )
    assert set(found.arrays) == set(outputs_of(tasks)) - {"num_detections"}
    assert found.nbytes == sum(array.nbytes for array in found.arrays.values())
    for name in whole.arrays:
        if name in found.arrays:
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-5)
        else:
            with pytest.raises(NotServed, match=rf"it serves {', '.join(tasks)} "):
                getattr(found, name)


def test_golden_answers_are_those_of_the_tasks(model_of_tasks: Path, tasks: tuple[ModelTask, ...]) -> None:
    engine = load_engine(model_of_tasks, threads=1)
    first, *rest = engine.contract.golden
    assert (bool(first.mask_fractions), bool(first.detections), bool(first.class_probs)) == tuple(
        task in tasks for task in MODEL_TASKS
    )
    check_golden(engine)
    whole = answer_golden(Engine(FakeSession(), make_contract()))[0]
    if first != whole:  # what the model does not say may not be promised either
        contract = dataclasses.replace(engine.contract, golden=(whole, *rest))
        with pytest.raises(ContractError, match=r"answers otherwise|covers"):
            check_golden(Engine(FakeSession(), contract))


def test_a_contract_keeps_its_tasks(tasks: tuple[ModelTask, ...]) -> None:
    contract = make_contract(tasks=tasks)
    assert parse_contract(contract.to_json()) == contract
    values = json.loads(contract.to_json())
    assert tuple(values.pop("tasks")) == tasks
    if tasks == MODEL_TASKS:  # so did all files before there was a choice
        assert parse_contract(json.dumps(values)) == contract
    else:
        with pytest.raises(ContractError, match="must be names, at least one"):
            parse_contract(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": ()}, "tasks must be some of segment, detect, classify"),
        ({"tasks": ("detect", "segment")}, "in this order"),
        ({"tasks": ("detect", "detect")}, "each once"),
        ({"tasks": ("detect", "read")}, "tasks must be"),
        ({"tasks": "detect"}, "tasks must be"),
        ({"tasks": ("detect",), "segmentation_classes": ("background", "cat")}, "segmentation_classes must be empty"),
        ({"tasks": ("detect",), "detection_classes": ()}, "detection_classes must be names"),
    ],
)
def test_tasks_that_are_none_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        make_contract(**changes)


@pytest.mark.parametrize("value", [5, None, {"detect": 1}, [["detect"]], "detect"])
def test_tasks_of_another_type_are_refused(value: object) -> None:
    values = json.loads(make_contract().to_json())
    with pytest.raises(ContractError):
        parse_contract(json.dumps({**values, "tasks": value}))


def test_a_graph_with_other_outputs_than_its_tasks_is_refused(
    tmp_path: Path, write_tiny_model: Callable[..., Path]
) -> None:
    path = write_tiny_model(tmp_path / "model.onnx", make_contract(tasks=("segment", "classify")), outputs=slice(1))
    with pytest.raises(ContractError, match="the contract lists"):
        load_engine(path, threads=1)
