from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from training.config import Config, ConfigError, StageConfig, Task, load_config
from training.data.taxonomy import MINI
from training.learner import build_optimizer
from training.models.multitask import MultiTaskModel, build_model
from training.options.stage import Part

SEGMENTATION, DETECTION, CLASSIFICATION = Task
PRESETS = sorted(
    entry.name.removesuffix(".toml")
    for entry in (resources.files("training") / "presets").iterdir()
    if entry.name.endswith(".toml")
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def stage(task: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of StageConfig
    return {"task": task, "epochs": 1, **changes}


def build_default(config: Config) -> MultiTaskModel:
    return build_model(config.model.model_copy(update={"backbone_weights": "random"}), MINI.num_classes)


@pytest.mark.parametrize("name", PRESETS)
def test_each_shipped_preset_loads_and_is_named_after_its_file(name: str) -> None:
    assert load_config(name).preset == name


def test_the_seed_preset_is_the_schedule_of_the_report() -> None:
    seed = load_config("seed")
    assert [(stage.task, stage.epochs) for stage in seed.stages] == [
        (SEGMENTATION, 10),
        (DETECTION, 40),
        (CLASSIFICATION, 10),
    ]
    assert [set(stage.ewc.strength) for stage in seed.stages] == [set(), {SEGMENTATION}, {SEGMENTATION, DETECTION}]
    assert all(strength > 0 for stage in seed.stages for strength in stage.ewc.strength.values())
    assert (seed.input_size, seed.model.neck_channels, seed.model.head_channels) == (512, 160, 160)
    assert (seed.model.backbone_weights, seed.model.batch_norm) == ("imagenet", "live")
    assert (seed.detection_loss.bce_epochs, seed.detection_loss.focal_gamma) == (10, 1.0)


def test_the_default_preset_learns_the_three_tasks_in_order_with_fewer_than_two_million_parameters() -> None:
    default = load_config("default")
    assert [stage.task for stage in default.stages] == [SEGMENTATION, DETECTION, CLASSIFICATION]
    model = build_default(default)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000


def test_the_last_stage_of_the_default_preset_trains_the_last_layer_of_classification_alone() -> None:
    default = load_config("default")
    model = build_default(default)
    build_optimizer(model, default.stages[-1])
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"head.classification.predict.weight", "head.classification.predict.bias"}
    assert not model.shared_parameters()


def test_the_tiny_preset_needs_no_weights() -> None:
    tiny = load_config("tiny")
    assert (tiny.input_size, tiny.model.backbone_weights) == (64, "random")
    assert [stage.task for stage in tiny.stages] == list(Task)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('preset = "x"\nlearning_rat = 1\n[[stages]]\ntask = "detection"\nepochs = 1\n', "learning_rat"),
        ('preset = "x"\n[[stages]]\ntask = "detection"\nepochs = 1\nepoch = 2\n', "stages.0.epoch"),
        ('preset = "x"\n[model]\nneck = 1\n[[stages]]\ntask = "detection"\nepochs = 1\n', "model.neck"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_file_and_key(tmp_path: Path, lines: str, named: str) -> None:
    path = write(tmp_path / "mine.toml", lines)
    with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
        load_config(path)
    assert named in str(caught.value)


def test_a_missing_preset_is_an_error_that_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"presets are default, seed, tiny"):
        load_config("no-such-preset")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"preset = ", b"preset = '\xff'"])
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config(path)


def test_a_file_loads_by_its_path_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'preset = "mine"\n[[stages]]\ntask = "detection"\nepochs = 3\n')
    assert load_config(str(path)) == load_config(path)
    assert load_config(path).stages[0].epochs == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stages": []}, "each task at most once, at least one"),
        ({"stages": [stage("detection"), stage("detection")]}, "at most once"),
        ({"stages": [stage("detection", ewc={"strength": {"segmentation": 1.0}})]}, "no earlier stage has learned"),
        ({"stages": [stage("detection", ewc={"strength": {"detection": 1.0}})]}, "no earlier stage has learned"),
        (
            {"stages": [stage("segmentation"), stage("detection", ewc={"strength": {"segmentation": -1.0}})]},
            "greater than or equal to 0",
        ),
        ({"stages": [stage("depth")]}, "segmentation"),
        ({"stages": [stage("detection", epochs=0)]}, "greater than 0"),
        ({"input_size": 100}, "multiple of 32"),
        ({"inference": {"mask_stride": 5}}, "mask_stride 5 must divide input_size 64"),
        ({"inference": {"score_floor": 0.05}}, "less than or equal to 0.01"),
        ({"model": {"batch_norm": "froze"}}, "frozen"),
        ({"model": {"head": "branches"}}, "head 'branches' does not go with neck 'single'"),
        ({"model": {"neck": "pan"}}, "head 'unified' does not go with neck 'pan'"),
        (
            {"model": {"neck": "fpn", "head": "branches", "taps": "expansions", "classification": "tail"}},
            "'tail' goes on from the block taps",
        ),
        ({"stages": [stage("detection", lr_factors={"spine": 0})]}, "backbone"),
        ({"stages": [stage("detection", lr_factors={"tail": 0})]}, r"lr_factors for \['tail'\]; this network has"),
        (
            {"stages": [stage("detection", lr_factors={"detection": 1})]},
            r"this network has \['backbone', 'neck', 'stem'\]",
        ),
        (
            {"stages": [stage("detection", distillation={"outputs": 1}, replay={"pictures": 3}, averaging=0.5)]},
            r"\['distillation', 'replay', 'averaging'\] hold on to what earlier .*; detection is the first",
        ),
        ({"stages": [stage("detection", augment={"copy_paste": 0.5})]}, "copy_paste is for segmentation"),
        ({"stages": [stage("segmentation", augment={"mosaic": 0.5})]}, "mosaic is for detection"),
        ({"stages": [stage("detection", augment={"rand_augment": 2})]}, "rand_augment is for classification"),
        (
            {"stages": [stage("segmentation", ewc={"fisher": "exact", "strength": {"segmentation": 1}})]},
            "exact Fisher information is for classification",
        ),
        (
            {"stages": [stage("segmentation", ewc={"online": True, "strength": {"segmentation": 1, "detection": 2}})]},
            "online there is one anchor",
        ),
        (
            {
                "stages": [
                    stage("segmentation"),
                    stage("detection", ewc={"strength": {"segmentation": 1}}),
                    stage("classification", ewc={"strength": {"detection": 1}, "online": True}),
                ]
            },
            "ewc is online in all stages that use it",
        ),
        ({"holdout": 0.5}, "less than 0.5"),
        ({"preset": "Über"}, "pattern"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_a_value_out_of_its_range_is_an_error(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config("tiny", **changes)


def test_a_part_learns_as_fast_as_it_is_told_or_else_as_its_kind_does() -> None:
    parts: tuple[Part, ...] = get_args(Part)
    assert parts == ("backbone", "neck", "stem", "segmentation", "detection", "classification", "tail")
    plain = StageConfig(task=DETECTION, epochs=1)
    assert [plain.lr_factor(part) for part in parts] == [0.1, 1, 1, 0, 1, 0, 0]
    told = StageConfig(task=DETECTION, epochs=1, lr_factors={"backbone": 0.5, "segmentation": 0.2, "detection": 0})
    assert [told.lr_factor(part) for part in parts] == [0.5, 1, 1, 0.2, 0, 0, 0]
    last = StageConfig(task=CLASSIFICATION, epochs=1)
    assert last.lr_factor("tail") == last.lr_factor("classification") == 1
    still = StageConfig(task=CLASSIFICATION, epochs=1, lr_factors={"tail": 0})
    assert (still.lr_factor("tail"), still.lr_factor("classification")) == (0, 1)


def test_an_override_replaces_one_key_and_leaves_the_others() -> None:
    changed = load_config("tiny", seed=7)
    assert changed.seed == 7
    assert changed.model_copy(update={"seed": 0}) == load_config("tiny")


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_json_as_it_was(name: str) -> None:
    config = load_config(name)
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load_config("tiny"), "seed", 1)  # noqa: B010 - mypy knows it too


@pytest.mark.parametrize(
    ("setting", "find", "value"),
    [
        ("detection.epochs=7", lambda config: config.stages[1].epochs, 7),
        ("model.neck_channels = 48", lambda config: config.model.neck_channels, 48),
        ("seed=5", lambda config: config.seed, 5),
        ("model.head=branches", lambda config: config.model.head, "branches"),
        ("detection.augment.sizes=[64, 96]", lambda config: config.stages[1].augment.sizes, (64, 96)),
        (
            'classification.teachers=[{source="a=b.toml", weight=0.5}]',
            lambda config: [teacher.source for teacher in config.stages[2].teachers],
            ["a=b.toml"],
        ),
    ],
)
def test_one_value_of_a_preset_is_changed(setting: str, find: Callable[[Config], object], value: object) -> None:
    more = ["model.neck=fpn"] if "head" in setting else []
    assert find(load_config("tiny", settings=[setting, *more])) == value
    assert find(load_config("tiny")) != value


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("detection.epochs", "is no setting; wanted KEY=VALUE"),
        ("=3", "is no setting"),
        ("detection=3", r"wanted detection\.KEY=VALUE"),
        ("detection.epoch=3", "epoch: Extra inputs are not permitted"),
        ("detection.epochs=many", "epochs"),
        ("input_size.of=3", "input_size is no table"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config("tiny", settings=[setting])
