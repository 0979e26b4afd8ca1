import pytest

from training.config import ModelConfig, Task
from training.models.heads import UnifiedHead
from training.models.multitask import MultiTaskModel
from training.models.rows import label_rows

NAMES = {
    Task.SEGMENTATION: ("background", "crack"),
    Task.DETECTION: ("bolt", "nut", "crack"),
    Task.CLASSIFICATION: ("good", "bad", "odd", "none"),
}
BRANCHES = {"neck": "fpn", "head": "branches", "neck_channels": 16}


@pytest.mark.parametrize("tasks", [tuple(Task), (Task.DETECTION,), (Task.SEGMENTATION, Task.CLASSIFICATION)])
@pytest.mark.parametrize(
    "shape",
    [{}, BRANCHES, BRANCHES | {"segmentation": "lraspp"}, BRANCHES | {"reg_max": 8, "routing": "static"}],
    ids=["unified", "branches", "lraspp", "distributions"],
)
def test_there_is_a_label_for_each_row_of_each_layer_whose_size_depends_on_the_classes(
    shape: dict[str, object], tasks: tuple[Task, ...]
) -> None:
    config = ModelConfig.model_validate({"backbone_weights": "random", **shape})
    names = {task: NAMES[task] for task in tasks}
    state = MultiTaskModel(config, {task: len(own) for task, own in names.items()}).state_dict()
    more = MultiTaskModel(config, {task: len(own) + 1 for task, own in names.items()}).state_dict()
    labels = label_rows(config, names)
    growing = {name.rpartition(".")[0] for name, value in state.items() if value.shape != more[name].shape}
    assert growing == labels.keys()
    assert {layer: len(rows) for layer, rows in labels.items()} == {
        layer: len(state[f"{layer}.weight"]) for layer in growing
    }
    assert all(len(set(rows)) == len(rows) for rows in labels.values())


def test_rows_stand_where_the_unified_head_reads_them() -> None:
    model = MultiTaskModel(ModelConfig(backbone_weights="random"), {task: len(own) for task, own in NAMES.items()})
    rows = label_rows(ModelConfig(), NAMES)["head.predict"]
    assert isinstance(model.head, UnifiedHead)
    for task, own in model.head.rows.items():
        read = rows[own]
        assert {row.task for row in read} == {task}
        assert tuple(row.name for row in read if row.name) == NAMES[task]
