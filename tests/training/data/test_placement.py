import math

import numpy as np
import pytest

from service.pictures.imaging import fit
from training.data.placement import Placement, Span, draw_placement, letterboxed

PICTURES = [(48, 64), (64, 40), (97, 31), (300, 200), (3, 50)]  # height, width


def draw_many(picture: tuple[int, int], count: int = 200, **options: float) -> list[Placement]:
    rng = np.random.default_rng(0)
    return [draw_placement(rng, picture, (64, 64), scale=(0.5, 2.0), **options) for _ in range(count)]  # type: ignore[arg-type] # stretch only


@pytest.mark.parametrize("picture", PICTURES)
def test_the_letterbox_is_that_of_serving(picture: tuple[int, int]) -> None:
    height, width = picture
    place, served = letterboxed(picture, 64), fit(width, height, 64)
    assert (place.x.resized, place.y.resized) == (served.resized_width, served.resized_height)
    assert (place.x.offset, place.y.offset) == (0, 0)


def test_sizes_are_log_uniform_about_the_letterbox() -> None:
    factors = np.log2([place.y.resized / 64 for place in draw_many((1024, 512), count=2000)])
    assert -1.02 < factors.min() < -0.95
    assert 0.95 < factors.max() < 1.02
    assert np.histogram(factors, bins=4, range=(-1, 1))[0] == pytest.approx([500] * 4, rel=0.15)


def test_without_stretch_the_picture_keeps_its_shape() -> None:
    for place in draw_many((300, 200)):
        assert place.x.resized == pytest.approx(place.y.resized * 2 / 3, abs=1)


def test_stretch_changes_the_shape_either_way_and_not_the_area() -> None:
    places = draw_many((1000, 1000), stretch=0.5)
    shapes = [place.x.resized / place.y.resized for place in places]
    assert 1 / 1.5 - 0.05 < min(shapes) < 0.75
    assert 1.35 < max(shapes) < 1.55
    plain = draw_many((1000, 1000))[0]
    assert places[0].x.resized * places[0].y.resized == pytest.approx(plain.x.resized * plain.y.resized, rel=0.05)


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_that_fits_is_seen_whole_and_one_that_does_not_leaves_no_padding(picture: tuple[int, int]) -> None:
    for place in draw_many(picture, stretch=0.3):
        for span in (place.x, place.y):
            seen = span.visible.stop - span.visible.start
            assert seen == min(span.canvas, span.resized)


def test_every_position_occurs() -> None:
    rng = np.random.default_rng(0)
    for zoom, low, high in ((0.9, 0, 6), (1.1, -6, 0)):
        offsets = {draw_placement(rng, (64, 64), (64, 64), scale=(zoom, zoom)).x.offset for _ in range(200)}
        assert offsets == set(range(low, high + 1))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("picture", PICTURES)
def test_the_canvas_shows_the_point_in_focus(picture: tuple[int, int], mirrored: bool) -> None:
    rng = np.random.default_rng(1)
    height, width = picture
    for _ in range(200):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        place = draw_placement(rng, picture, (32, 32), scale=(0.7, 4), stretch=0.3, mirrored=mirrored, focus=(x, y))
        shown_x, shown_y = place.x.to_canvas(np.array([x])).item(), place.y.to_canvas(np.array([y])).item()
        assert -1e-3 <= shown_x <= 32
        assert -1e-3 <= shown_y <= 32
        for span in (place.x, place.y):  # and no padding that could be avoided
            assert span.visible.stop - span.visible.start == min(span.canvas, span.resized)


def test_the_focus_may_lie_anywhere_on_the_canvas() -> None:
    rng = np.random.default_rng(0)
    places = [draw_placement(rng, (64, 64), (64, 64), scale=(4, 4), focus=(32, 32)) for _ in range(300)]
    shown = [place.x.to_canvas(np.array([32])).item() for place in places]
    assert min(shown) < 4
    assert max(shown) > 60


def test_the_same_seed_draws_the_same_placement() -> None:
    assert draw_many((48, 64), stretch=0.2) == draw_many((48, 64), stretch=0.2)
    assert len(set(draw_many((48, 64)))) > 100


def test_a_picture_beside_the_canvas_is_refused() -> None:
    for offset in (-20, 8):
        with pytest.raises(ValueError, match="show nothing"):
            Span(10, 20, offset, 8)
    assert Span(10, 20, -19, 8).visible == slice(0, 1)
    assert Span(10, 20, 7, 8).visible == slice(7, 8)


def test_a_hand_worked_span() -> None:
    span = Span(length=10, resized=20, offset=-5, canvas=8)
    assert span.to_canvas(np.array([0, 2.5, 10], dtype=np.float32)).tolist() == [-5, 0, 15]
    # Canvas pixels 0..8 are 5..13 of the resized picture, 2.5..6.5 of the original: pixels 2..7, at -1.
    assert span.crop() == (slice(2, 7), -1, 10)
    assert span.nearest(stride=2, count=10).tolist() == [
        3,
        4,
        5,
        6,
    ]  # centres 1, 3, 5, 7 are 3, 4, 5, 6 of the original


def test_a_hand_worked_mirrored_span() -> None:
    span = Span(length=10, resized=20, offset=-5, canvas=8, mirrored=True)
    assert span.to_canvas(np.array([10, 7.5, 0], dtype=np.float32)).tolist() == [-5, 0, 15]
    assert span.crop() == (slice(3, 8), -1, 10)
    assert span.nearest(stride=2, count=10).tolist() == [6, 5, 4, 3]


def test_cells_outside_the_picture_take_no_sample() -> None:
    span = Span(length=4, resized=8, offset=6, canvas=24)
    assert span.cells(4).tolist() == [False, True, True, False, False, False]  # centres 2, 6, 10, 14, ...
    assert span.samples(4, count=2).tolist() == [0, 1]


def test_a_crop_holds_all_that_is_seen_and_lies_off_by_half_a_pixel_at_most() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        length, resized, canvas = rng.integers(1, 200, 3).tolist()
        span = Span(length, resized, int(rng.integers(1 - resized, canvas)), canvas)
        source, start, count = span.crop()
        assert 0 <= source.start < source.stop <= length
        assert start <= span.visible.start
        assert span.visible.stop <= start + count
        for end, at in ((source.start, start), (source.stop, start + count)):
            assert math.isclose(at, span.offset + end * span.scale, abs_tol=0.5)
