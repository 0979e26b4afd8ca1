import pytest

from tests.training.lab.report.records import make_details
from tests.training.outline import Outline
from tests.training.there import there
from training.config import Task
from training.data.datasets import DataError, DataSets
from training.data.taxonomy import MINI
from training.lab.report.pictures import choose_pictures, picture_sheets
from training.metrics.details import PictureAnswer


def answer(name: str, score: float | None, boxes: int = 0) -> PictureAnswer:
    return PictureAnswer(picture=name, score=score, boxes=((0, 0.5, 0.0, 0.0, 1.0, 1.0),) * boxes)


def names(chosen: list[PictureAnswer]) -> str:
    return "".join(one.picture for one in chosen)


def test_the_worst_come_from_one_end_and_the_best_from_the_other() -> None:
    answers = [answer(name, score) for name, score in zip("abcdefghij", (5, 3, 8, 1, 0, 9, 2, 7, 4, 6), strict=True)]
    worst, best = choose_pictures(answers)
    assert (names(worst), names(best)) == ("edgb", "fchj")


def test_no_picture_is_worst_and_best_at_once() -> None:
    worst, best = choose_pictures([answer(name, 0.0) for name in "abcde"])
    assert (names(worst), names(best)) == ("ab", "cd")
    worst, best = choose_pictures([answer("a", 1.0)])
    assert (names(worst), names(best)) == ("a", "")


def test_of_equals_the_fuller_picture_is_shown_and_one_without_objects_never() -> None:
    worst, best = choose_pictures([answer("a", 0.0, 1), answer("b", 0.0, 3), answer("c", 1.0, 2), answer("d", None)])
    assert (names(worst), names(best)) == ("b", "c")


@pytest.mark.parametrize("task", list(Task))
def test_each_picture_has_truth_beside_prediction(sets: DataSets, task: Task) -> None:
    details = make_details(sets)[task]
    outline = Outline(picture_sheets(task, MINI.names(task), details.pictures, sets.split(task).val, input_size=64))
    panels = 1 if task is Task.CLASSIFICATION else 2
    assert len(outline.images) == 4 * panels
    for image in outline.images:
        assert (image["src"] or "").startswith("data:image/jpeg;base64,")
    shown = {(image["alt"] or "").split()[0] for image in outline.images}
    assert shown == {sample.image.name for sample in sets.split(task).val}


def test_the_true_class_is_shown_though_it_came_late(sets: DataSets) -> None:
    details = make_details(sets)[Task.CLASSIFICATION]
    outline = Outline(
        picture_sheets(
            Task.CLASSIFICATION, MINI.classification, details.pictures, there(sets.classification).val, input_size=64
        )
    )
    assert ["parachute (true)", "", "0.00"] in outline.rows
    assert ["chain saw (true)", "", "1.00"] in outline.rows


def test_other_data_is_refused_by_name(sets: DataSets) -> None:
    details = make_details(sets)[Task.SEGMENTATION]
    with pytest.raises(DataError, match="the data has no validation picture 2007_val_"):
        picture_sheets(
            Task.SEGMENTATION, MINI.segmentation, details.pictures, there(sets.segmentation).train, input_size=64
        )
