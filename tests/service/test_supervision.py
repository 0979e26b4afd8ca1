"""`Result.to_supervision`, with supervision itself, and with a double of its door where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.client import Detection, Result

FOUND = (Detection((1, 2, 11.5, 12), "cat", 15, 0.75), Detection((0, 0, 3, 4), "person", 0, 0.5))


@dataclass
class Double:
    """What supervision 0.31 asks of its `Detections`: arrays of these shapes, all of one length."""

    xyxy: NDArray[np.float64]
    mask: None = None
    confidence: NDArray[np.float64] | None = None
    class_id: NDArray[np.int64] | None = None
    tracker_id: None = None
    data: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        assert self.xyxy.shape == (count, 4)
        assert self.confidence is not None
        assert self.class_id is not None
        assert self.confidence.shape == self.class_id.shape == (count,)
        assert all(len(values) == count for values in self.data.values())


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a module
    double: Any = types.ModuleType("supervision")
    double.Detections = Double
    monkeypatch.setitem(sys.modules, "supervision", double)
    return double


@pytest.fixture
def supervision() -> Iterator[Any]:
    """Itself; where it is not installed tests are left out, but never in CI."""
    if importlib.util.find_spec("supervision") is None and not os.environ.get("CI"):
        pytest.skip("supervision is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenCV", UserWarning)  # it does without
        yield importlib.import_module("supervision")


@pytest.fixture(params=["supervision", "double"])
def package(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - a module
    return request.getfixturevalue(request.param)


def make_result(*found: Detection) -> Result:
    return Result(20, 16, found, (), (), None, {}, {}, "miss", "r1", b"")


def test_detections_are_those_of_the_result(package: Any) -> None:  # noqa: ANN401 - a module
    detections = make_result(*FOUND).to_supervision()
    assert isinstance(detections, package.Detections)
    np.testing.assert_array_equal(detections.xyxy, [[1, 2, 11.5, 12], [0, 0, 3, 4]])
    np.testing.assert_array_equal(detections.confidence, [0.75, 0.5])
    np.testing.assert_array_equal(detections.class_id, [15, 0])
    assert detections.data["class_name"].tolist() == ["cat", "person"]
    assert np.issubdtype(detections.class_id.dtype, np.integer)


def test_nothing_found_is_no_detections(package: Any) -> None:  # noqa: ANN401 - a module
    detections = make_result().to_supervision()
    assert isinstance(detections, package.Detections)
    assert detections.xyxy.shape == (0, 4)
    assert (len(detections.confidence), len(detections.class_id), len(detections.data["class_name"])) == (0, 0, 0)


def test_supervision_filters_and_counts_what_was_found(supervision: Any) -> None:  # noqa: ANN401 - a module
    detections = make_result(*FOUND).to_supervision()
    assert [str(name) for name in detections[detections.confidence > 0.6].data["class_name"]] == ["cat"]
    np.testing.assert_allclose(detections.area, [105, 12])
    assert len(supervision.Detections.merge([detections, make_result().to_supervision()])) == 2
    zone = supervision.PolygonZone(polygon=np.array([[0, 0], [6, 0], [6, 6], [0, 6]]))
    assert zone.trigger(detections).tolist() == [False, True]


def test_without_supervision_python_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match="supervision"):
        make_result().to_supervision()
