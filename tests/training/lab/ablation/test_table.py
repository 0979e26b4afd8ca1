import hashlib
import json
from pathlib import Path

import pytest

from tests.training.lab.ablation.tables import (
    SEGMENTATION,
    TINY,
    read_table,
)
from training.config import Task
from training.lab.ablation.table import (
    SHIPPED_TABLE,
    AblationError,
    Direction,
    Experiment,
    deep_merge,
    load_table,
)


def test_a_deep_merge_replaces_leaves_and_lists_and_leaves_its_arguments_as_they_were() -> None:
    base = {"a": {"b": {"c": 1, "d": [1, 2]}, "e": 2}, "f": 3}
    changes = {"a": {"b": {"d": [3], "g": {"h": 4}}}, "f": {"i": 5}}
    merged = deep_merge(base, changes)
    assert merged == {"a": {"b": {"c": 1, "d": [3], "g": {"h": 4}}, "e": 2}, "f": {"i": 5}}
    assert base == {"a": {"b": {"c": 1, "d": [1, 2]}, "e": 2}, "f": 3}
    assert changes == {"a": {"b": {"d": [3], "g": {"h": 4}}}, "f": {"i": 5}}


def test_a_row_changes_what_it_names_and_keeps_the_rest_of_the_base(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, mosaic = (experiment.config for experiment in table)
    assert base.model.neck == "fpn"
    assert pan == base.model_copy(update={"model": base.model.model_copy(update={"neck": "pan"})})
    assert ewc.stages[1].ewc.strength == {SEGMENTATION: 10}
    assert (ewc.stages[0], ewc.stages[2], ewc.model) == (base.stages[0], base.stages[2], base.model)
    assert mosaic.stages[1].augment.mosaic == 0.5
    assert [stage.task for stage in mosaic.stages] == list(Task)


def test_the_shipped_table_is_valid_and_asks_about_every_direction() -> None:
    base, *rows = load_table(SHIPPED_TABLE)
    assert {row.direction for row in rows} == set(Direction)
    assert [stage.task for stage in base.config.stages] == list(Task)
    assert base.config.holdout >= 0.1
    assert all(row.config.model.backbone_weights == "imagenet" for row in rows)


@pytest.mark.parametrize("experiment", load_table(SHIPPED_TABLE), ids=lambda experiment: experiment.name)
def test_every_stage_of_every_shipped_row_has_something_to_learn(experiment: Experiment) -> None:
    shared = ("backbone", "neck", "stem") if experiment.config.model.head == "unified" else ("backbone", "neck")
    for stage in experiment.config.stages:
        own = () if experiment.config.model.head == "unified" else (str(stage.task),)
        assert any(stage.lr_factors.get(part, 1) for part in (*shared, *own))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('model.neck = "pan"', "model.depth = 2", r"pan: model\.depth: Extra inputs"),
        ('model.neck = "pan"', 'model.neck = "bridge"', r"pan: model\.neck: Input should be"),
        ('model.neck = "pan"', "stages.segmentation.augment.mosaic = 0.5", "pan: stages.0: .* mosaic is for detection"),
        ('model.neck = "pan"', "stages.counting.epochs = 2", "Input should be 'segmentation'"),
        ('model.neck = "pan"', 'model.neck = "fpn"', "pan: the same config as 'base'"),
        ('model.neck = "pan"', "holdout = 0.2", "pan: rows are measured on the pictures that the base"),
        ('direction = "scales"', 'direction = "colour"', r"rows\.0\.direction: Input should be"),
        ('direction = "scales"', 'direction = "scales"\nspeed = 1', r"rows\.0\.speed: Extra inputs"),
        ('name = "pan"', 'name = "base"', "two rows are called 'base'"),
        ('name = "pan"', 'name = "../pan"', r"rows\.0\.name: String should match"),
        ("holdout = 0.34", "holdout = 0.05", "a holdout of 0.05; wanted 0.1 or more"),
        ("detection = { epochs = 1, batch_size = 2 }", "", "the base learns 2 tasks"),
        ("[base]", "[base", "table.toml: "),
    ],
)
def test_a_table_with_a_fault_is_refused_in_one_line_that_names_it(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert TINY.count(old) == 1
    with pytest.raises(AblationError, match=complaint) as caught:
        read_table(tmp_path, TINY.replace(old, new))
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_the_config_without_its_seed(table: tuple[Experiment, ...]) -> None:
    values = table[1].config.model_dump(mode="json")
    del values["seed"]
    assert table[1].digest == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    assert len({experiment.digest for experiment in table}) == len(table)
