from __future__ import annotations

import re

import grpc
import pytest

from service import errors
from service.api.grpc.statuses import STATUSES, find_status
from tests.checkout import ROOT

PAGE = (ROOT / "docs" / "how-to" / "grpc.md").read_text()
# | `UNAVAILABLE` | `not_ready`, `draining`, `overloaded` | ...
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]+) \|", re.MULTILINE)


def leaves() -> list[type[errors.UniheadError]]:
    """The errors that a request may end with."""
    kinds = [*errors.RequestError.__subclasses__(), *errors.Unavailable.__subclasses__()]
    return [*kinds, errors.ModelOutputInvalid]


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_the_page_names_the_status_of_each_failure(kind: type[errors.UniheadError]) -> None:
    (status,) = [name for name, codes in ROW.findall(PAGE) if f"`{kind.code}`" in codes]  # type: ignore[attr-defined]
    assert find_status(kind.__new__(kind)).name == status


def test_what_nobody_foresaw_is_internal() -> None:
    assert find_status(ValueError()) is grpc.StatusCode.INTERNAL
    assert find_status(errors.ClientDisconnected()) is grpc.StatusCode.CANCELLED


def test_the_fault_of_the_caller_is_never_told_as_ours() -> None:
    ours = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    for kind, status in STATUSES.items():
        assert (status in ours) == issubclass(kind, errors.Unavailable | errors.ModelOutputInvalid) or (
            kind is errors.DeadlineExceeded
        )
