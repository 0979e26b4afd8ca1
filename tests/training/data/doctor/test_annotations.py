import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.doctor.clean_sets import write_clean_sets
from training.data.datasets import DataError
from training.data.doctor.annotations import examine_annotations
from training.data.doctor.codes import Ledger
from training.data.doctor.examine import examine
from training.data.doctor.findings import Severity
from training.data.sources import read_data

ABSENT = object()
STRANGE = (ABSENT, None, True, -1, 10**6, "x", [1, 2, 3], {"id": 1})


def each_spoilt(document: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a COCO file with one field of one row gone or strange."""
    text = json.dumps(document)
    for part, rows in document.items():
        for key in rows[0]:
            for value in STRANGE:
                spoilt = json.loads(text)
                if value is ABSENT:
                    del spoilt[part][0][key]
                else:
                    spoilt[part][0][key] = value
                yield f"{part} {key} {value}", spoilt


def test_whatever_the_training_reader_refuses_is_an_error_that_is_not_repaired(tmp_path: Path) -> None:
    root = write_clean_sets(tmp_path) / "mini_coco_det"
    path = root / "train" / "labels.json"
    missed, refused = [], 0
    for what, spoilt in each_spoilt(json.loads(path.read_bytes())):
        path.write_text(json.dumps(spoilt))
        errors = [each for each in examine(root).findings if each.severity is Severity.ERROR and not each.repaired]
        try:
            with warnings.catch_warnings(action="ignore"):
                read_data(root)
        except DataError:
            refused += 1
            if not errors:
                missed.append(what)
    assert missed == []
    assert refused > 60


def test_a_category_whose_name_is_a_dict_is_quoted(tmp_path: Path) -> None:
    # As in a published labels.json: ids 0..79, each name a dict, annotations with ids up to 90.
    categories = [{"id": number, "name": {"id": number + 1, "name": "person"}} for number in range(80)]
    annotations = [{"id": 5, "image_id": 1, "category_id": 90, "bbox": [1, 1, 5, 5]}]
    images = [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    ledger = Ledger(tmp_path)
    file = examine_annotations(path, ledger)

    assert file is not None
    assert file.category_ids == {}
    found = {finding.code: finding.cases for finding in ledger.findings()}
    assert found.keys() == {"corrupt-category", "unknown-category-id"}
    assert len(found["corrupt-category"]) == 80
    assert found["corrupt-category"][0].detail == (
        '{"id": 0, "name": {"id": 1, "name": "person"}}; wanted an id >= 0 and a name in letters'
    )
    assert found["unknown-category-id"][0].detail == "category_id 90; wanted one of 80 ids from 0 to 79"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "annotations": {}, "categories": []}', "\xff"])
def test_a_file_that_is_no_coco_json_has_no_rows(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text, encoding="latin-1")
    ledger = Ledger(tmp_path)
    assert examine_annotations(path, ledger) is None
    assert [finding.code for finding in ledger.findings()] == ["unreadable-annotation-file"]


def test_of_two_categories_with_one_name_the_first_counts(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    file = examine_annotations(path, Ledger(tmp_path))
    assert file is not None
    assert file.category_ids == {"cat": 3}
