import pytest

from tests.training.fakes import make_config
from tests.training.lab.report.records import EVALUATIONS, epoch, evaluation, make_record
from tests.training.outline import Outline
from training.config import Task
from training.data.record import DataRecord, FaultRecord, SplitRecord
from training.lab.report.facts import (
    config_section,
    data_section,
    environment_section,
    flatten,
    polish_sentences,
    times_section,
)

DATA = DataRecord(
    fingerprint="ab" * 32,
    splits={
        Task.DETECTION: {
            "train": SplitRecord(pictures=7, class_counts={"cat": 1500, "dog": 2}),
            "val": SplitRecord(pictures=4, class_counts={"cat": 3}),
        }
    },
    faults=(
        FaultRecord(code="category-ids-differ", severity="error", title="Ids <differ>.", cases=63, repaired=True),
        FaultRecord(code="rare-class", severity="warning", title="Rare.", cases=1, repaired=False),
    ),
)


def test_the_data_is_counted_and_its_faults_are_named() -> None:
    page = data_section(make_record(data=DATA))
    outline = Outline(page)
    assert "ab" * 32 in page
    assert outline.row("detection", "train")[2:] == ["7", "6", "1,502 objects", "2"]
    assert outline.row("detection", "val")[2:] == ["4", "", "3 objects", "1"]
    assert outline.row("error Ids <differ>.") == [
        "error Ids <differ>.",
        "category-ids-differ",
        "repaired when training",
        "63",
    ]
    assert outline.row("warning Rare.")[2:] == ["", "1"]


def test_held_out_pictures_are_said_to_be_so() -> None:
    assert "Measured on the validation split" in data_section(make_record())
    assert "0.25 of the training pictures was held out" in data_section(make_record(config=make_config(holdout=0.25)))


def test_a_config_is_compared_with_its_preset() -> None:
    assert "As the shipped preset <code>tiny</code>" in config_section(make_config())
    page = config_section(make_config(seed=3))
    assert Outline(page).row("seed") == ["seed", "3", "0"]
    assert "<mark>seed = 3</mark>" in page
    assert "stages.detection.ewc.strength.segmentation = 0.1" in page


def test_a_preset_of_ones_own_is_compared_with_the_default() -> None:
    assert Outline(config_section(make_config(preset="mine"))).row("input_size") == ["input_size", "64", "320"]


@pytest.mark.parametrize("path", ["/home/somebody/checkpoint.pt", "C:\\runs\\checkpoint.pt"])
def test_a_path_in_a_config_loses_its_folders(path: str) -> None:
    assert flatten({"teachers": [{"source": path, "task": None}]}) == {
        "teachers.0.source": "checkpoint.pt",
        "teachers.0.task": "None",
    }


def test_a_run_that_went_on_elsewhere_has_two_machines() -> None:
    record = make_record(environments=[{"commit": "0123abc", "cores": "2"}, {"commit": "0123abc", "cores": "16"}])
    outline = Outline(environment_section(record))
    assert outline.rows[0][1:] == ["begun with", "then with"]
    assert outline.row("cores") == ["cores", "2", "16"]
    assert outline.row("seed") == ["seed", "0", ""]
    assert outline.row("parameters")[1] == "1,268,724"


def test_measuring_within_a_stage_takes_time_too() -> None:
    history = [epoch(Task.SEGMENTATION, 1, measure_seconds=7.0), evaluation(Task.SEGMENTATION, 0.4)]
    outline = Outline(times_section(make_record(history=history)))
    assert outline.row("stage segmentation")[1:] == ["1", "30.0 s", "30.0 s", "66.0 s", "1.0 s", "97.0 s"]


def test_times_add_up() -> None:
    outline = Outline(times_section(make_record()))
    # An epoch of 30 s and an evaluation of 60 s, 1 s of which are the importances.
    assert outline.row("stage detection")[1:] == ["1", "30.0 s", "30.0 s", "59.0 s", "1.0 s", "90.0 s"]
    assert outline.row("all") == ["all", "", "", "", "", "", "4.5 min"]
    assert "12.3 ms per image" in outline.text


def with_splits(final: dict[str, str], within: dict[str, str]) -> str:
    """The section of a run whose figures are of these splits, those within a stage of others."""
    last = EVALUATIONS[-1] | {"splits": final}
    history = [epoch(Task.CLASSIFICATION, 1, metrics=last["metrics"], splits=within), last]
    return data_section(make_record(history=history))


def test_a_run_says_what_was_measured_on_pictures_for_choices() -> None:
    every = dict.fromkeys(map(str, Task), "val")
    assert "choose" not in with_splits(every, every)
    page = with_splits(every, every | {"detection": "choose"})
    assert "Measured on the validation split." in page
    assert "Within stages, and to judge the polish, detection was measured on choose." in page
    page = with_splits(every | {"detection": "choose"}, every | {"detection": "choose"})
    assert "Measured on the validation split." in page
    assert "The data has no val of detection: measured on choose, by which choices were made too." in page
    assert "Within stages" not in page
    alone = dict.fromkeys(map(str, Task), "choose")
    page = with_splits(alone, alone)
    assert "no val of segmentation and detection and classification" in page
    assert "validation split" not in page


def test_a_polish_says_what_judged_it() -> None:
    metrics = {"detection": {"map_50": 0.1}}
    verdict = {"kind": "polish", "stage": "polish", "kept": True, "before": metrics, "after": metrics}
    (sentence,) = polish_sentences(make_record(history=[verdict]))
    assert "on held-out training pictures: detection 0.1000" in sentence
    splits = {"segmentation": "holdout", "detection": "choose"}
    (sentence,) = polish_sentences(make_record(history=[verdict | {"splits": splits}]))
    assert "on pictures for choices and held-out training pictures: detection" in sentence
