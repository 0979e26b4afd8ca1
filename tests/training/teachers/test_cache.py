from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array, letterbox
from service.pictures.resizing import resize
from tests.training.teachers.fakes import SIZE, ColourTeacher, Pictures, make_config, make_pictures
from training.config import Task
from training.data.feed.dataset import TaskDataset, load_sample
from training.data.placement import Placement, Span, letterboxed
from training.data.sources import read_data
from training.data.taxonomy import MINI
from training.data.transforms import flip
from training.teachers.cache import TeacherCache, cache_answers, crop_to_picture
from training.teachers.teacher import TeacherError

FILL = LetterboxRule().fill


def square_of(image: UInt8Array) -> UInt8Array:
    return letterbox(image, SIZE, FILL)[0]


@pytest.mark.parametrize("task", list(Task))
def test_a_teacher_sees_each_training_picture_once_and_no_other(tiny_sets: Path, task: Task) -> None:
    sets = read_data(tiny_sets)
    split = sets.split(task)
    teacher = ColourTeacher(Task.SEGMENTATION)
    cache = cache_answers(teacher, TaskDataset(split.train, make_config(), MINI), MINI)
    shown = [square.tobytes() for square in teacher.shown]
    assert shown == [square_of(load_sample(sample, MINI)[0]).tobytes() for sample in split.train]
    assert len(cache) == len(split.train)
    for other in Task:
        assert not set(shown) & {square_of(load_sample(one, MINI)[0]).tobytes() for one in sets.split(other).val}


def test_classes_come_back_by_row_in_half_precision() -> None:
    pictures = make_pictures((64, 64), (40, 64), (64, 30))
    cache = cache_answers(ColourTeacher(Task.CLASSIFICATION), pictures, MINI)
    expected = [square_of(pictures.images[row]).mean(axis=(0, 1)) / 16 for row in (2, 0)]
    found = cache.gather_classes([2, 0])
    assert (found.shape, found.dtype) == ((2, 10), torch.float32)
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-3)


def test_a_teacher_that_is_no_friend_of_padding_sees_the_picture_alone() -> None:
    pictures = make_pictures((40, 64), (64, 20))
    teacher = ColourTeacher(Task.CLASSIFICATION, letterboxed=False, input_size=48)
    cache_answers(teacher, pictures, MINI)
    for shown, image in zip(teacher.shown, pictures.images, strict=True):
        assert np.array_equal(shown, resize(image, 48, 48))


def ramp(size: int, cells: int) -> Tensor:
    """[2, cells, cells] x and y of each cell's centre; in pixels of the square."""
    centres = (torch.arange(cells) + 0.5) * size / cells
    return torch.stack([centres.expand(cells, cells), centres[:, None].expand(cells, cells)])


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 48), (50, 64), (63, 64), (64, 33), (64, 9), (3, 64)])
def test_a_map_is_cut_where_the_picture_ends_even_inside_a_cell(width: int, height: int) -> None:
    cut = crop_to_picture(ramp(64, 8), Placement(Span(width, width, 0, 64), Span(height, height, 0, 64)))
    columns, rows = max(1, round(width / 8)), max(1, round(height / 8))
    assert cut.shape == (2, rows, columns)
    # Nothing is known beyond the outermost centres, at 4 and 60.
    across = ((np.arange(columns) + 0.5) * width / columns).clip(4, 60)
    down = ((np.arange(rows) + 0.5) * height / rows).clip(4, 60)
    np.testing.assert_allclose(cut[0], np.broadcast_to(across, (rows, columns)), rtol=1e-5)
    np.testing.assert_allclose(cut[1], np.broadcast_to(down[:, None], (rows, columns)), rtol=1e-5)


def test_what_the_square_shows_beside_the_picture_does_not_come_into_its_map() -> None:
    maps = torch.full((1, 8, 8), 99.0)
    maps[:, :6] = 7
    assert set(crop_to_picture(maps, letterboxed((48, 64), 64)).flatten().tolist()) == {7}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (48, 64), (64, 32), (96, 128)])
def test_a_placed_map_is_what_the_teacher_says_about_the_placed_picture(shape: tuple[int, int], mirrored: bool) -> None:
    pictures = make_pictures(shape)
    teacher = ColourTeacher(Task.SEGMENTATION)
    maps, valid = cache_answers(teacher, pictures, MINI).place_maps(
        [0], [letterboxed(shape, SIZE, mirrored=mirrored)], 8
    )
    image = flip(pictures.images[0], 0)[0] if mirrored else pictures.images[0]
    expected = teacher.answer(torch.from_numpy(square_of(image)[None]))
    resized_height, resized_width = (side * SIZE // max(shape) for side in shape)
    assert valid.sum() == resized_height * resized_width / 64
    torch.testing.assert_close(maps * valid[:, None], expected * valid[:, None], rtol=1e-2, atol=0.05)
    assert valid[0, : resized_height // 8, : resized_width // 8].all()


def test_maps_follow_pictures_to_any_place_scale_and_stride() -> None:
    """The map tells where in the picture each cell is, and must still tell it after the picture moved."""
    height, width = 96, 128
    rows, columns = np.mgrid[:12, :16]
    answer = np.stack([columns * 8 + 4, rows * 8 + 4], axis=-1).astype(np.float16)
    placement = Placement(Span(width, 200, -37, 96), Span(height, 50, 20, 96))
    (maps,), (valid,) = TeacherCache([answer]).place_maps([0], [placement], 4)
    centres = np.arange(24) * 4 + 2.0
    x, y = (centres + 37) * width / 200, (centres - 20) * height / 50
    inside = (y >= 0) & (y < height)
    assert np.array_equal(valid, np.broadcast_to(inside[:, None], (24, 24)))
    np.testing.assert_allclose(maps[0][inside], np.broadcast_to(x.clip(4, 124), (inside.sum(), 24)), rtol=2e-3)
    np.testing.assert_allclose(maps[1][inside][:, 0], y[inside].clip(4, 92), rtol=2e-3)


def answers_of(cache: TeacherCache) -> list[list[float]]:
    return cache.gather_classes(range(len(cache))).tolist()


def test_a_second_run_reads_what_the_first_has_asked(tmp_path: Path) -> None:
    pictures = make_pictures(*[(64, 64)] * 11)
    first = cache_answers(ColourTeacher(Task.CLASSIFICATION), pictures, MINI, folder=tmp_path / "kept")
    teacher = ColourTeacher(Task.CLASSIFICATION)
    again = cache_answers(teacher, pictures, MINI, folder=tmp_path / "kept")
    assert not teacher.shown
    assert answers_of(first) == answers_of(again)


def test_maps_of_different_shapes_are_kept_too(tmp_path: Path) -> None:
    pictures = make_pictures((64, 64), (32, 64), (64, 16))
    placements = [letterboxed(image.shape[:2], SIZE) for image in pictures.images]
    first, again = (
        cache_answers(ColourTeacher(Task.SEGMENTATION), pictures, MINI, folder=tmp_path).place_maps(
            [0, 1, 2], placements, 8
        )
        for _ in range(2)
    )
    assert torch.equal(first[0], again[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda: (ColourTeacher(Task.CLASSIFICATION, sha256="others"), make_pictures((64, 64))),
        lambda: (ColourTeacher(Task.CLASSIFICATION, input_size=32), make_pictures((64, 64))),
        lambda: (ColourTeacher(Task.SEGMENTATION), make_pictures((64, 64))),
        lambda: (ColourTeacher(Task.CLASSIFICATION), make_pictures((64, 64), seed=1)),
        lambda: (ColourTeacher(Task.CLASSIFICATION), make_pictures((64, 64), (64, 64))),
    ],
    ids=["teacher", "size", "task", "pixels", "count"],
)
def test_another_teacher_size_task_or_picture_is_asked_anew(
    tmp_path: Path, change: Callable[[], tuple[ColourTeacher, Pictures]]
) -> None:
    cache_answers(ColourTeacher(Task.CLASSIFICATION), make_pictures((64, 64)), MINI, folder=tmp_path)
    teacher, pictures = change()
    cache_answers(teacher, pictures, MINI, folder=tmp_path)
    assert len(teacher.shown) == len(pictures)
    assert len(list(tmp_path.iterdir())) == 2


class WrongTeacher(ColourTeacher):
    """Says what it was told to say."""

    def __init__(self, task: Task, logits: Tensor) -> None:
        super().__init__(task)
        self.logits = logits

    def answer(self, images: Tensor) -> Tensor:
        del images
        return self.logits


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (WrongTeacher(Task.SEGMENTATION, torch.zeros(1, 20, 8, 8)), r"gave \(1, 20, 8, 8\); wanted 21"),
        (WrongTeacher(Task.SEGMENTATION, torch.zeros(1, 21)), r"gave \(1, 21\)"),
        (WrongTeacher(Task.CLASSIFICATION, torch.zeros(1, 21)), "wanted 10 classes"),
        (WrongTeacher(Task.CLASSIFICATION, torch.full((1, 10), torch.nan)), "not finite"),
        (WrongTeacher(Task.CLASSIFICATION, torch.full((1, 10), 1e6)), "not finite in half precision"),
        (ColourTeacher(Task.DETECTION), "depend on a picture's scale"),
    ],
)
def test_answers_that_cannot_be_learned_from_are_refused(teacher: ColourTeacher, sentence: str) -> None:
    with pytest.raises(TeacherError, match=sentence):
        cache_answers(teacher, make_pictures((64, 64)), MINI)
