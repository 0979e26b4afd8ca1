"""BentoML: one service with a route a task; the picture as the body. UNIHEAD_BENCH_WORKERS worker processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from tests.benchmarks.peers.pipeline import Pipeline

Picture = Annotated[Path, ContentType("image/jpeg")]


@bentoml.service(workers=int(os.environ.get("UNIHEAD_BENCH_WORKERS", "2")), traffic={"timeout": 60})
class Unihead:
    """Each worker process holds one pipeline."""

    def __init__(self) -> None:
        self._pipeline = Pipeline()

    @bentoml.api(route="/predict")
    def predict(self, picture: Picture, /) -> Annotated[bytes, ContentType("application/json")]:
        """All three."""
        return self._pipeline.answer(picture.read_bytes(), "predict")

    @bentoml.api(route="/segment")
    def segment(self, picture: Picture, /) -> Annotated[bytes, ContentType("application/json")]:
        """Masks."""
        return self._pipeline.answer(picture.read_bytes(), "segment")

    @bentoml.api(route="/detect")
    def detect(self, picture: Picture, /) -> Annotated[bytes, ContentType("application/json")]:
        """Boxes."""
        return self._pipeline.answer(picture.read_bytes(), "detect")

    @bentoml.api(route="/classify")
    def classify(self, picture: Picture, /) -> Annotated[bytes, ContentType("application/json")]:
        """Classes."""
        return self._pipeline.answer(picture.read_bytes(), "classify")
