"""What is known to be wrong with the real mini sets, counted by other means (shared data README)."""

from collections import Counter
from pathlib import Path

import pytest

from training.data.doctor.examine import examine
from training.data.doctor.findings import Examination, Finding, Severity


@pytest.fixture(scope="module")
def examination(mini_sets_root: Path) -> Examination:
    return examine(mini_sets_root)


@pytest.fixture(scope="module")
def findings(examination: Examination) -> dict[str, Finding]:
    return {finding.code: finding for finding in examination.findings}


def test_the_faults_are_the_known_ones_and_all_are_repaired(examination: Examination) -> None:
    assert not examination.has_errors
    repaired = [finding for finding in examination.findings if finding.repaired]
    assert {finding.code: len(finding.cases) for finding in repaired} == {
        "category-ids-differ": 63,
        "crowd-box": 35,
        "tiny-box": 6,
        "same-picture-in-two-splits": 5,
        "foreign-annotation-file": 1,
    }
    assert {finding.severity for finding in repaired} == {Severity.WARNING}


def test_no_category_id_agrees(findings: dict[str, Finding]) -> None:
    details = [case.detail for case in findings["category-ids-differ"].cases]
    assert all("63 of 63 shared names differ; 76 categories in train, 63 in val" in detail for detail in details)
    assert any(detail.startswith("person is 39 here and 48 in train") for detail in details)


def test_the_pictures_on_both_sides_are_named(findings: dict[str, Finding]) -> None:
    stems = {Path(case.where).stem for case in findings["same-picture-in-two-splits"].cases}
    assert stems == {"000000323751", "000000370486", "000000428111", "000000511204", "000000513567"}


def test_the_annotation_file_of_another_sample_is_named(findings: dict[str, Finding]) -> None:
    (case,) = findings["foreign-annotation-file"].cases
    assert case.where == "mini_coco_det/labels.json"
    assert case.detail == "lists 300 pictures, 4 of which are here"


def test_no_strangers_look_alike(findings: dict[str, Finding]) -> None:
    assert "near-duplicate" not in findings


def test_every_picture_is_examined(examination: Examination) -> None:
    counts = Counter((each.task, picture.split) for each in examination.sets for picture in each.pictures)
    assert set(counts.values()) == {240, 60}
    assert len(counts) == 6
