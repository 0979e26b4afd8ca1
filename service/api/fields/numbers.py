"""Numbers in headers and queries: plain decimals with no more digits than their limit has."""

from __future__ import annotations

import re

# All that Python, JavaScript and printf write for a number from 0 to 1, 1e-05 too.
_FRACTION = re.compile(r"([0-9](\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][-+]?[0-9]{1,3})?")


def read_decimal(text: str, most: int) -> int | None:
    """Read a whole number from 0; None where the text is none, or one beyond the limit.

    Only ASCII's digits count, and as many of them as the limit has. `int` takes blanks, underscores, signs and the
    digits of every script, and raises where there are thousands; and behind leading zeros a limit is easily missed.

    Args:
        text: of a header or of a query.
        most: the largest number that is taken.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        return None
    number = int(text)
    return number if number <= most else None


def read_fraction(text: str) -> float | None:
    """Read a number from 0, with a digit before the point and an exponent at most; None where the text is none."""
    return float(text) if _FRACTION.fullmatch(text) else None
