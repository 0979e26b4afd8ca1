from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.data.labelling.make_teachers import CLASSES, write_boxes, write_cells, write_classifier, write_toml
from tests.training.teachers.fakes import CPU, make_pictures
from training.config import Task
from training.data.taxonomy import MINI, Taxonomy
from training.teachers.cache import cache_answers
from training.teachers.sources import open_teacher
from training.teachers.teacher import Teacher, TeacherError

COLOURS = Taxonomy(segmentation=("background", "blue", "green"), classification=("blue", "red"))
PROBS = 'activation = "none"'


def open_it(path: Path, task: Task, taxonomy: Taxonomy = COLOURS) -> Teacher:
    return open_teacher(str(path), task, taxonomy=taxonomy, device=CPU)


def plain(*colours: tuple[int, int, int], size: int = 32) -> torch.Tensor:
    return torch.tensor(colours, dtype=torch.uint8)[:, None, None].expand(-1, size, size, -1).contiguous()


def test_a_classifier_of_any_make_teaches_the_classes_of_the_data(tmp_path: Path) -> None:
    path = write_toml(write_classifier(tmp_path / "t.onnx"), output='kind = "class-logits"')
    teacher = open_it(path, Task.CLASSIFICATION)
    logits = teacher.answer(plain((255, 51, 0), (0, 0, 102)))
    # Means are logits here; soft-max does not see what all of them lost.
    expected = np.array([[0, 1], [0.4, 0]])
    np.testing.assert_allclose(logits - logits[:, :1], expected - expected[:, :1], atol=1e-5)


def test_classes_of_one_name_add_up_and_probabilities_become_logits(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "t.onnx")
    toml = write_toml(path, output=f'kind = "class-logits"\n{PROBS}', more='aliases = { green = "red" }')
    logits = open_it(toml, Task.CLASSIFICATION).answer(plain((51, 51, 102)))
    np.testing.assert_allclose(logits.exp(), [[0.4, 0.4]], atol=1e-5)
    toml = write_toml(path, output='kind = "class-logits"', more='aliases = { green = "red" }')
    logits = open_it(toml, Task.CLASSIFICATION).answer(plain((51, 51, 102)))
    shares = np.exp([0.2, 0.2, 0.4]) / np.exp([0.2, 0.2, 0.4]).sum()
    np.testing.assert_allclose(logits.exp(), [[shares[2], shares[:2].sum()]], atol=1e-5)


@pytest.mark.parametrize("corner", ["centre", "top-left"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_network_of_masks_teaches_on_the_picture_alone(tmp_path: Path, fit: str, corner: str) -> None:
    given = f'size = [32, 48]\nfit = "{fit}"\nplace = "{corner}"\nscale = 1\nfill = [0, 0, 255]'
    path = write_toml(
        write_cells(tmp_path / "t.onnx", size=(32, 48)),
        given=given,
        output=f'kind = "mask-logits"\n{PROBS}',
        names=("nothing", "green", "blue"),
        more="background = 0",
    )
    teacher = open_it(path, Task.SEGMENTATION)
    pictures = make_pictures((24, 72), (40, 20))
    for image in pictures.images:
        image[...] = (51, 102, 153)
        image[:, : image.shape[1] // 2, 1] = 204
    cache = cache_answers(teacher, pictures, COLOURS)
    for row in range(len(pictures)):
        maps = np.exp(cache._answers[row].astype(np.float32))
        assert maps.shape[2] == 3
        # No blue of the padding: where a cell lies across the border its neighbour inside is as near.
        inner = maps[1:-1] if maps.shape[0] > 2 else maps
        np.testing.assert_allclose(inner[..., 0], 0.2, atol=0.01)
        np.testing.assert_allclose(inner[:, 1:-1, 1], inner[:1, 1:-1, 1].repeat(len(inner), axis=0), atol=0.01)
        assert inner[0, 1, 2] == pytest.approx(0.8, abs=0.01)
        assert inner[0, -2, 2] == pytest.approx(0.4, abs=0.01)


def test_answers_are_kept_under_file_and_description(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "t.onnx")
    first = open_it(write_toml(path, output='kind = "class-logits"'), Task.CLASSIFICATION)
    same = open_it(write_toml(path, output='kind = "class-logits"'), Task.CLASSIFICATION)
    other = open_it(write_toml(path, output=f'kind = "class-logits"\n{PROBS}'), Task.CLASSIFICATION)
    assert first.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    ("task", "output", "names", "more", "sentence"),
    [
        (Task.CLASSIFICATION, 'kind = "mask-logits"', CLASSES, "", "gives mask-logits and cannot teach classification"),
        (Task.SEGMENTATION, 'kind = "mask-ids"', CLASSES, "", "gives mask-ids and cannot teach segmentation"),
        (Task.SEGMENTATION, 'kind = "mask-logits"', CLASSES, "", "has no background"),
        (Task.SEGMENTATION, 'kind = "mask-logits"', ("a", "b", "c"), "background = 0", "none is 'blue', 'green'"),
        (Task.SEGMENTATION, 'kind = "mask-logits"\nlogits = "x"', CLASSES, "", r"t\.toml: output\.mask-logits\.logits"),
    ],
)
def test_what_cannot_teach_says_why(
    tmp_path: Path, task: Task, output: str, names: tuple[str, ...], more: str, sentence: str
) -> None:
    path = write_toml(write_cells(tmp_path / "t.onnx"), output=output, names=names, more=more)
    with pytest.raises(TeacherError, match=rf"the teacher .*{sentence}"):
        open_it(path, task)


def test_a_detector_is_for_labelling(tmp_path: Path) -> None:
    path = write_toml(write_boxes(tmp_path / "t.onnx", [[0, 0, 1, 1]]), output='kind = "boxes"\nunit = "share"')
    with pytest.raises(
        TeacherError, match=r"gives boxes and cannot teach detection.*`unihead-data label` makes labels"
    ):
        open_it(path, Task.DETECTION, MINI)


def test_a_value_too_many_is_told(tmp_path: Path) -> None:
    path = write_toml(write_cells(tmp_path / "t.onnx"), output='kind = "class-logits"')
    teacher = open_it(path, Task.CLASSIFICATION)
    with pytest.raises(TeacherError, match=r"t\.onnx gave \[1, 3, 8, 8\]; wanted a value for each of 3 names"):
        teacher.answer(plain((1, 2, 3)))
