from __future__ import annotations

import pytest

from service.api.parameters import read_timeout_s, wants_fresh
from service.errors import InvalidParameter


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 2.5), ("1", 0.001), ("30", 0.03), ("600000", 600.0), ("000600", 0.6)]
)
def test_a_timeout_is_told_in_milliseconds(header: str | None, seconds: float) -> None:
    assert read_timeout_s(header, default_ms=2500) == seconds


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0",
        "-5",
        "soon",
        "1.5",
        "600001",
        "9" * 400,
        "0000600000",
        "00006000009999999",
        "0000000001" + "0" * 5000,
        "1_0",
        " 1",
        "\u00b2",
    ],
)
def test_a_timeout_that_is_none_is_named(header: str) -> None:
    with pytest.raises(InvalidParameter, match="it takes whole milliseconds, 1 to 600000"):
        read_timeout_s(header, default_ms=2500)


@pytest.mark.parametrize(
    ("cache_control", "fresh"),
    [("", False), ("no-cache", True), ("max-age=0, No-Store", True), ("max-age=0", False), ("no-cached", False)],
)
def test_who_says_so_shares_with_nobody(cache_control: str, fresh: bool) -> None:
    assert wants_fresh(cache_control) is fresh
