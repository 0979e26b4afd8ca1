"""Bars and bubbles against figures worked out by hand."""

import re

import pytest

from training.data.doctor.findings import SplitSummary
from training.data.doctor.html.charts import box_sides, class_bars, picture_sizes, short


def make_split(
    name: str = "train",
    counts: dict[str, int] | None = None,
    sides: tuple[float, ...] = (),
    sizes: tuple[tuple[int, int], ...] = (),
) -> SplitSummary:
    return SplitSummary(name, len(sizes), counts or {}, sides, sizes)


def test_class_bars_compare_shares_and_print_counts() -> None:
    splits = (make_split("train", {"cat": 30, "dog": 10}), make_split("val", {"cat": 1, "dog": 1}))
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', class_bars(splits, "boxes"))
    assert [name for name, _ in rows] == ["cat", "dog"]
    widths = [[float(width) for width in re.findall(r"width:([\d.]+)%", row)] for _, row in rows]
    assert widths == [[100.0, 66.7], [33.3, 66.7]]  # 75, 50, 25 and 50 % of their splits
    assert '<td class="number">30</td><td class="number">1</td>' in rows[0][1]


def test_rare_classes_are_told_apart_on_a_root_scale() -> None:
    text = class_bars((make_split(counts={"person": 400, "cat": 4, "dog": 1}),), "boxes")
    assert "square-root scale" in text
    assert re.findall(r"width:([\d.]+)%", text) == ["100.0", "10.0", "5.0"]


def test_box_sides_fall_into_doubling_bins() -> None:
    text = box_sides((make_split(sides=(0.0, 1.9, 2.0, 3.9, 4.0, 5000.0)),))
    for tip in (
        "train, under 2 px: 2 boxes (33.3%)",
        "train, 2 to 4 px: 2 boxes (33.3%)",
        "train, 4 to 8 px: 1 boxes (16.7%)",
        "train, 1024 px and more: 1 boxes (16.7%)",
    ):
        assert f"<title>{tip}</title>" in text


def test_picture_sizes_put_a_bubble_where_pictures_are() -> None:
    text = picture_sizes((make_split(sizes=((500, 250),) * 3 + ((250, 500),)),))
    bubbles = [tuple(map(float, each)) for each in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', text)]
    (wide_x, wide_y, wide_r), (tall_x, tall_y, tall_r) = bubbles
    assert wide_x > tall_x
    assert wide_y > tall_y  # down is less in pictures, more in SVG
    assert wide_r > tall_r
    assert 'aria-label="Picture sizes: widths 250 to 500 px, heights 250 to 500 px"' in text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (99_999, "99,999"), (123_456, "123 k"), (999_600, "1.0 M"), (2_340_000, "2.3 M")]
)
def test_short_counts(number: int, text: str) -> None:
    assert short(number) == text


def test_charts_of_nothing_are_drawn() -> None:
    assert box_sides((make_split(),)).startswith("<svg")
    assert picture_sizes((make_split(),)).startswith("<svg")
    assert class_bars((), "boxes")
