import re

import pytest

from tests.training.outline import Outline
from training.lab.report.charts import (
    Line,
    legend,
    line_chart,
    make_axis,
    make_count_axis,
    matrix_chart,
    reliability_chart,
)


def attributes(drawing: str, tag: str, name: str) -> list[list[float]]:
    """The numbers in an attribute of all elements of a kind, in order."""
    values = re.findall(rf'<{tag} [^>]*?{name}="([^"]*)"', drawing)
    return [[float(number) for number in re.split(r"[ ,]", value)] for value in values]


def test_a_line_runs_from_corner_to_corner_of_its_axes() -> None:
    line = Line("loss", [(0, 0), (5, 1), (10, 2)])
    chart = line_chart([line], make_count_axis("epoch", 10), make_axis("loss", 2.0), spoken="Losses", width=400)
    (points,) = attributes(chart, "polyline", "points")
    assert points == [54, 198, 220, 105, 386, 12]  # in the middle half way up
    assert "Losses" in chart


@pytest.mark.parametrize(("highest", "top"), [(0.37, 0.4), (1.0, 1.0), (1.1, 1.2), (8.3, 10), (0.0009, 0.001), (0, 1)])
def test_an_axis_ends_at_a_round_number(highest: float, top: float) -> None:
    axis = make_axis("loss", highest)
    assert axis.high == pytest.approx(top)
    assert axis.ticks == pytest.approx([0, top / 4, top / 2, 3 * top / 4, top])


@pytest.mark.parametrize(("high", "ticks"), [(2, (0, 1, 2)), (14, (0, 5, 10)), (60, (0, 10, 20, 30, 40, 50, 60))])
def test_epochs_are_counted_in_whole_steps(high: int, ticks: tuple[int, ...]) -> None:
    assert make_count_axis("epoch", high).ticks == ticks


def test_small_numbers_are_short() -> None:
    chart = line_chart([], make_count_axis("epoch", 2), make_axis("learning rate", 1e-3), spoken="")
    assert [text for text in re.findall(r">([^<>]+)</text>", chart) if "e-" in text] == [
        "2.5e-4",
        "5e-4",
        "7.5e-4",
        "1e-3",
    ]


def test_names_are_escaped_and_the_legend_has_the_colours_of_the_lines() -> None:
    lines = [Line("<b>", [(0, 1)], 1), Line("sum", [(0, 1)], None, dashed=True)]
    drawn = legend(lines) + line_chart(lines, make_count_axis("x", 1), make_axis("y", 1), spoken="<i>")
    assert not {"b", "i"} & set(Outline(drawn).tags)
    assert 'class="key s1"' in drawn
    assert 'class="dot s1"' in drawn
    assert 'class="key ink dashed"' in drawn


def test_a_confusion_matrix_by_hand() -> None:
    drawing = matrix_chart([[3, 1, 0], [0, 0, 0], [1, 0, 199]], ["cat", "dog", "person"], "pictures")
    assert re.findall(r"<title>([^<]+)</title>", drawing) == [
        "cat taken for cat: 3 pictures, 75.0% of the row",
        "cat taken for dog: 1 pictures, 25.0% of the row",
        "person taken for cat: 1 pictures, 0.5% of the row",
        "person taken for person: 199 pictures, 99.5% of the row",
    ]
    assert attributes(drawing, "rect", "fill-opacity") == [[0.75], [0.25], [0.005], [0.995]]
    # Row 0 column 0, row 0 column 1, row 2 column 0, row 2 column 2; right ones in one colour, wrong ones in another.
    corners = zip(attributes(drawing, "rect", "x"), attributes(drawing, "rect", "y"), strict=True)
    assert [(x - 104, y - 96) for (x,), (y,) in corners] == [(0, 0), (34, 0), (0, 68), (68, 68)]
    assert re.findall(r'<rect class="(\w+)"', drawing) == ["s0", "s3", "s3", "s0"]
    assert "on the diagonal 99.0%" in drawing  # 202 of 204


def test_a_reliability_diagram_by_hand() -> None:
    drawing = reliability_chart([4, 0, 8], [0.2, None, 0.9], [0.5, None, 0.75])
    bars = [height for (height,) in attributes(drawing, "rect", "height")]
    # 188 units are a share of 1, 30 the fullest bin.
    assert bars == pytest.approx([94, 15, 141, 30], abs=0.06)
    assert "4 answers with mean score 0.20 are right in 50%; 8 answers" in drawing
    assert len(attributes(drawing, "circle", "cx")) == 2
