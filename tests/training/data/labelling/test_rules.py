import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from service.pictures.imaging import UInt8Array
from training.data.labelling.answers import BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.fusion import Witness
from training.data.labelling.image_labels import ImageLabels, Known, find_known, find_strangers, load_image_labels
from training.data.labelling.rules import Rules, judge_boxes, judge_classes, judge_masks
from training.data.taxonomy import COCO, VOC

RULES = Rules()
NOTHING = Known()


def witness(scores: list[float], labels: list[int], weight: float = 1) -> Witness:
    boxes = np.array([[20 * place, 0, 20 * place + 9, 9] for place in range(len(scores))], dtype=np.float32)
    return Witness(BoxAnswer(boxes, np.array(scores, dtype=np.float32), np.array(labels)), weight, [True] * 3)


def known(present: set[int], absent: set[int]) -> Known:
    return Known(frozenset(present), frozenset(absent))


def test_boxes_of_denied_classes_go_and_those_below_the_floor_too() -> None:
    judged, given = judge_boxes([witness([0.9, 0.8, 0.04], [0, 1, 2])], known(set(), {0}), RULES)
    assert (judged.labels.tolist(), given.tolist()) == ([1], pytest.approx([0.8]))


def test_where_a_class_is_affirmed_a_lower_score_is_worth_as_much() -> None:
    judged, given = judge_boxes([witness([0.29, 0.18, 0.1], [1, 0, 0])], known({0}, set()), RULES)
    assert judged.labels.tolist() == [0, 1, 0]  # 0.18 comes before 0.29
    assert judged.scores.tolist() == pytest.approx([0.3, 0.29, 0.1986], abs=1e-4)
    assert given.tolist() == pytest.approx([0.18, 0.29, 0.1])
    assert RULES.raise_scores(np.array([0, 1], dtype=np.float32)).tolist() == [0, 1]


def test_one_detector_is_not_fused_with_itself_and_two_are() -> None:
    box = np.array([[0, 0, 9, 9], [0, 0, 9, 8]], dtype=np.float32)
    one = Witness(BoxAnswer(box, np.array([0.9, 0.8], dtype=np.float32), np.array([0, 0])), 1, [True])
    assert len(judge_boxes([one], NOTHING, RULES)[0].boxes) == 2
    assert len(judge_boxes([one, one], NOTHING, RULES)[0].boxes) == 1


def test_there_are_no_more_boxes_than_a_network_gives() -> None:
    judged, _ = judge_boxes([witness(np.linspace(0.1, 1, 400).tolist(), [0] * 400)], NOTHING, RULES)
    assert len(judged.boxes) == 300
    assert judged.scores.min() > 0.1 + 0.9 * 99 / 399


def mask(ids: list[int], probs: list[float]) -> MaskAnswer:
    return MaskAnswer(np.array([ids], dtype=np.uint8), np.rint(255 * np.array([probs])).astype(np.uint8))


def values(found: UInt8Array) -> list[int]:
    return [int(value) for value in found[0]]


def test_pixels_that_are_unsure_or_denied_are_void() -> None:
    answers = [(mask([0, 1, 1, 2, 2], [0.9, 0.56, 0.54, 0.9, 0.4]), 1.0)]
    assert values(judge_masks(answers, 2, NOTHING, RULES)) == [0, 1, 255, 2, 255]
    assert values(judge_masks(answers, 2, known({1}, {0}), RULES)) == [0, 255, 255, 2, 2]


def test_teachers_of_masks_vote_by_how_sure_they_are() -> None:
    answers = [(mask([1, 1, 1, 0], [0.9, 0.9, 0.8, 1]), 2.0), (mask([1, 2, 2, 0], [0.7, 0.9, 0.2, 1]), 1.0)]
    # Both say 1 with 0.833; 1 has 1.8 of 3; 1 has 1.6 of 3, which is not enough.
    assert values(judge_masks(answers, 2, NOTHING, RULES)) == [1, 1, 255, 0]


def classes(*probs: float) -> ClassAnswer:
    return ClassAnswer(np.array(probs, dtype=np.float32))


def test_pictures_without_a_sure_class_have_none() -> None:
    assert judge_classes([(classes(0.6, 0.3), 1)], NOTHING, RULES)[0] == 0
    assert judge_classes([(classes(0.5, 0.3), 1)], NOTHING, RULES)[0] is None
    assert judge_classes([(classes(0.5, 0.3), 1)], known({0}, set()), RULES)[0] == 0
    assert judge_classes([(classes(0.6, 0.3), 1)], known(set(), {0}), RULES)[0] is None


def test_teachers_of_classes_are_averaged_by_weight() -> None:
    label, probs = judge_classes([(classes(0.9, 0.1), 1), (classes(0.1, 0.9), 3)], NOTHING, RULES)
    assert label == 1
    assert probs.tolist() == pytest.approx([0.3, 0.7])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"min_score": 0.1}, "score_floor 0.05, unsure_score 0.15 and min_score 0.1; wanted them in rising order"),
        ({"score_floor": 0.2}, "score_floor 0.2, unsure_score 0.15"),
        ({"min_score": 1.0}, "less than 1"),
        ({"admit": 0.0}, "greater than 0"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        Rules.model_validate(given)


def test_image_labels_are_found_by_name_and_by_the_other_name_of_the_same_thing() -> None:
    labels = ImageLabels(present=("airplane", "dog"), absent=("cat", "unicorn"))
    found = find_known(labels, VOC[1:])
    assert found == known({VOC.index("aeroplane") - 1, VOC.index("dog") - 1}, {VOC.index("cat") - 1})
    assert find_known(labels, COCO).present == {COCO.index("airplane"), COCO.index("dog")}
    assert find_strangers({"a.jpg": labels}, VOC) == ["unicorn"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", r"labels\.json: .*JSON.*wanted \{"),
        ('{"a.jpg": ["dog"]}', r"labels\.json: a\.jpg: .*wanted \{"),
        ('{"a.jpg": {"presents": ["dog"]}}', r"a\.jpg\.presents: Extra inputs"),
        ('{"a.jpg": {"present": ["dog"], "absent": ["dog"]}}', r"'dog' is in present and in absent"),
    ],
)
def test_image_labels_that_cannot_be_read_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(LabellingError, match=sentence):
        load_image_labels(tmp_path / "labels.json")


def test_image_labels_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabellingError, match=r"none\.json: No such file"):
        load_image_labels(tmp_path / "none.json")
