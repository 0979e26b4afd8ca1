from __future__ import annotations

import pytest

from service.api.fields.numbers import read_decimal, read_fraction


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("600", 600), ("007", 7), ("000", 0)])
def test_digits_are_a_number(text: str, number: int) -> None:
    assert read_decimal(text, 600) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "601",
        "0600",
        "0000000001",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1_0",
        "1.0",
        "1e2",
        "0x1",
        "nan",
        "\u00b2",
        "\u0661",
        "\n1",
        "9" * 5000,
        "0" * 5000 + "1",
    ],
)
def test_everything_else_is_none(text: str) -> None:
    assert read_decimal(text, 600) is None


@pytest.mark.parametrize(
    "text", ["0", "1", "0.5", ".5", "1.", "0.30000000000000004", "1e-05", "1.2345678901234567e-05", "5e-324", "7"]
)
def test_what_programs_write_for_a_fraction_is_read(text: str) -> None:
    assert read_fraction(text) == float(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-0.0",
        "+1",
        "nan",
        "inf",
        "0" * 5000,
        "0." + "1" * 5000,
        "1e9999",
        " 0.5",
        "0_1",
        "\u0661",
        "00.5",
        "0x1",
    ],
)
def test_everything_else_is_no_fraction(text: str) -> None:
    assert read_fraction(text) is None
