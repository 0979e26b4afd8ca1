from collections.abc import Callable

import numpy as np
import pytest

from service.engine.contract import LetterboxRule
from service.pictures.imaging import UInt8Array
from training.data.augment import Augmented, Pick, Recipe, augment, choose_focus
from training.data.geometry import place_boxes, place_image, place_mask
from training.data.placement import letterboxed
from training.data.rand_augment import rand_augment
from training.data.taxonomy import VOID
from training.data.transforms import Boxes, Target, flip, to_input
from training.options.augment import AugmentConfig

HEIGHT, WIDTH = 48, 64


def make_image(seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def make_mask() -> UInt8Array:
    """Background, much of class 3 on the left, a little of class 9 in a corner, void between."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[4:44, 2:30] = 3
    mask[4:44, 30:32] = VOID
    mask[40:46, 56:62] = 9
    return mask


def make_boxes() -> Boxes:
    boxes = np.array([[2, 3, 21, 30], [40, 0, 60, 19], [6, 6, 8, 8]], dtype=np.float32)
    return Boxes(boxes, np.array([4, 4, 7]))


def no_pick(_: np.random.Generator) -> tuple[UInt8Array, Target]:
    raise AssertionError("no other picture was needed")


def run(
    target: Target, config: AugmentConfig, *, seed: int = 0, mirrored: bool = False, pick: Pick = no_pick
) -> Augmented:
    recipe = Recipe(config, size=64, mask_stride=4, pick=pick)
    return augment(np.random.default_rng(seed), make_image(), target, recipe, mirrored=mirrored)


def same(one: Target, other: Target) -> bool:
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "labels"))
    return type(one) is type(other) and np.array_equal(one, other)  # type: ignore[arg-type] # arrays or ints by now


TARGETS: list[Callable[[], Target]] = [make_mask, make_boxes, lambda: 5]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("make_target", TARGETS)
def test_the_defaults_are_the_pipeline_of_the_seed_preset_and_draw_nothing(
    make_target: Callable[[], Target], mirrored: bool
) -> None:
    rng, image, target = np.random.default_rng(0), make_image(), make_target()
    recipe = Recipe(AugmentConfig(), size=64, mask_stride=4, pick=no_pick)
    made = augment(rng, image, target, recipe, mirrored=mirrored)
    square, placed = to_input(*(flip(image, target) if mirrored else (image, target)), size=64, mask_stride=4)
    assert np.array_equal(made.image, square)
    assert same(made.target, placed)
    assert made.placement == letterboxed((HEIGHT, WIDTH), 64, mirrored=mirrored)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_placement_tells_where_everything_went(mirrored: bool) -> None:
    config = AugmentConfig(scale=(0.5, 2), stretch=0.2)
    placements = set()
    for seed in range(20):
        seen, boxed, named = (run(make(), config, seed=seed, mirrored=mirrored) for make in TARGETS)
        place = seen.placement
        assert place is not None
        assert place == boxed.placement == named.placement
        for made in (seen, boxed, named):
            assert np.array_equal(made.image, place_image(make_image(), place, LetterboxRule().fill))
        assert same(seen.target, place_mask(make_mask(), place, 4))
        assert same(boxed.target, place_boxes(make_boxes(), place, min_side_px=3, min_visible=0.3))
        assert named.target == 5
        placements.add(place)
    assert len(placements) == 20


def test_boxes_too_small_to_see_are_dropped_when_pictures_are_jittered_only() -> None:
    kept = run(make_boxes(), AugmentConfig(scale=(0.99, 0.99))).target
    assert isinstance(kept, Boxes)
    assert kept.labels.tolist() == [4, 4]
    whole = run(make_boxes(), AugmentConfig()).target
    assert isinstance(whole, Boxes)
    assert whole.labels.tolist() == [4, 4, 7]


def test_colours_change_and_the_padding_does_not() -> None:
    made, plain = run(5, AugmentConfig(colour=0.5)), run(5, AugmentConfig())
    assert not np.array_equal(made.image[:HEIGHT], plain.image[:HEIGHT])
    assert np.array_equal(made.image[HEIGHT:], plain.image[HEIGHT:])


def test_a_picture_of_one_class_goes_through_rand_augment_and_no_other_does() -> None:
    config = AugmentConfig(rand_augment=2, rand_augment_magnitude=0.5)
    changed = rand_augment(np.random.default_rng(4), make_image(), 2, 0.5)
    assert np.array_equal(run(5, config, seed=4).image, to_input(changed, 5, size=64, mask_stride=4)[0])
    assert np.array_equal(run(make_mask(), config).image, run(make_mask(), AugmentConfig()).image)


def pick_boxes(rng: np.random.Generator) -> tuple[UInt8Array, Target]:
    number = int(rng.integers(1, 1000))
    return make_image(number), Boxes(make_boxes().boxes, np.arange(3) + number * 1000)


def test_a_mosaic_holds_objects_of_this_picture_and_three_others() -> None:
    pictures: set[int] = set()
    for seed in range(10):
        made = run(make_boxes(), AugmentConfig(mosaic=1, min_side_px=0), seed=seed, pick=pick_boxes)
        assert made.placement is None
        assert made.image.shape == (64, 64, 3)
        assert isinstance(made.target, Boxes)
        origins = set((made.target.labels // 1000).tolist())
        assert 1 < len(origins) <= 4
        pictures |= origins
    assert 0 in pictures
    assert len(pictures) > 20


def test_copy_paste_brings_objects_of_another_picture() -> None:
    white, other = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    other[10:40, 10:50] = 12
    made = run(make_mask(), AugmentConfig(copy_paste=1, flip=False), pick=lambda _: (white, other))
    assert made.placement is None
    assert isinstance(made.target, np.ndarray)
    changed = (made.image != run(make_mask(), AugmentConfig()).image).any(axis=2)
    top = int(np.argmax(changed.any(axis=1)))
    assert top >= 10  # a letterboxed source may lie anywhere in the free height
    assert (made.image[top : top + 30, 10:50] == 255).all()
    changed[top : top + 30, 10:50] = False
    assert not changed.any()
    assert (made.target == 12).sum() == pytest.approx(30 * 40 / 16, abs=10)
    assert set(np.unique(made.target).tolist()) >= {0, 3, 12, VOID}


@pytest.mark.parametrize("target", [make_mask(), 5])
def test_only_pictures_with_boxes_become_mosaics(target: Target) -> None:
    assert run(target, AugmentConfig(mosaic=1)).placement is not None


@pytest.mark.parametrize("target", [make_boxes(), 5])
def test_only_pictures_with_masks_are_pasted_on(target: Target) -> None:
    assert run(target, AugmentConfig(copy_paste=1)).placement is not None


def test_as_many_mosaics_are_made_as_were_asked_for() -> None:
    config = AugmentConfig(mosaic=0.3)
    made = [run(make_boxes(), config, seed=seed, pick=pick_boxes).placement is None for seed in range(300)]
    assert 0.22 < np.mean(made) < 0.38


def test_the_same_seed_makes_the_same_example() -> None:
    config = AugmentConfig(scale=(0.5, 2), stretch=0.2, colour=0.3, focus=0.5, mosaic=0.5)
    for seed in range(6):
        one, again = (run(make_boxes(), config, seed=seed, pick=pick_boxes) for _ in range(2))
        assert np.array_equal(one.image, again.image)
        assert same(one.target, again.target)


def test_a_crop_in_focus_shows_the_class_with_weight() -> None:
    config, weights = AugmentConfig(scale=(3, 3), focus=1), np.zeros(21, dtype=np.float32)
    weights[9] = 1
    found = {"focus": 0, "plain": 0}
    for seed in range(40):
        for name, chosen in (("focus", config), ("plain", AugmentConfig(scale=(3, 3)))):
            recipe = Recipe(chosen, size=64, mask_stride=1, pick=no_pick, class_weights=weights)
            made = augment(np.random.default_rng(seed), make_image(), make_mask(), recipe, mirrored=bool(seed % 2))
            assert isinstance(made.target, np.ndarray)
            found[name] += bool((made.target == 9).any())
    assert found["focus"] == 40
    assert found["plain"] < 25


def test_the_focus_is_a_pixel_of_an_object_never_background_or_void() -> None:
    rng, mask = np.random.default_rng(0), make_mask()
    points = [choose_focus(rng, mask, None) for _ in range(200)]
    labels = [int(mask[int(point[1]), int(point[0])]) for point in points if point]
    assert set(labels) == {3, 9}
    assert len(labels) == 200
    assert 70 < labels.count(9) < 130  # as often as class 3, though a thirtieth of its size


def test_the_focus_is_the_centre_of_a_box_and_weights_choose_its_class() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([0, 0, 0, 0, 1, 0, 0, 3], dtype=np.float32)
    points = [choose_focus(rng, make_boxes(), weights) for _ in range(400)]
    assert set(points) == {(11.5, 16.5), (50, 9.5), (7, 7)}
    assert 270 < points.count((7, 7)) < 330


def test_without_an_object_there_is_no_focus() -> None:
    rng = np.random.default_rng(0)
    assert choose_focus(rng, 5, None) is None
    assert choose_focus(rng, np.zeros((4, 4), dtype=np.uint8), None) is None
    assert choose_focus(rng, Boxes(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)), None) is None
    assert choose_focus(rng, make_mask(), np.zeros(21, dtype=np.float32)) is None


def test_the_callers_arrays_stay_as_they_are() -> None:
    image, mask = make_image(), make_mask()
    config = AugmentConfig(scale=(0.5, 2), colour=0.5, copy_paste=1)
    recipe = Recipe(config, size=64, mask_stride=4, pick=lambda _: (image, mask))
    for seed in range(4):
        augment(np.random.default_rng(seed), image, mask, recipe, mirrored=True)
    assert np.array_equal(image, make_image())
    assert np.array_equal(mask, make_mask())
