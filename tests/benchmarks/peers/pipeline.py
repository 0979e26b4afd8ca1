"""What every peer serves: this project's own code from bytes to JSON, one forward pass of one thread for one task."""

from __future__ import annotations

import os
from pathlib import Path

from service.answers.schemas import ClassifyResponse, DetectResponse, PictureResponse, PredictResponse, SegmentResponse
from service.commands.bench import run_pipeline
from service.engine.contract import ModelTask
from service.engine.engine import load_engine
from service.machine import keep_freed_memory
from service.settings import Settings

TASKS: dict[str, tuple[tuple[ModelTask, ...] | None, type[PictureResponse]]] = {
    "segment": (("segment",), SegmentResponse),
    "detect": (("detect",), DetectResponse),
    "classify": (("classify",), ClassifyResponse),
    "predict": (None, PredictResponse),
}


class Pipeline:
    """One session of one thread; a worker process of a peer holds one."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._engine = load_engine(Path(os.environ.get("UNIHEAD_MODEL", Settings().model)), threads=1)
        self._engine.warm_up()

    def answer(self, body: bytes, task: str = "predict") -> bytes:
        """Take one picture from bytes to JSON."""
        tasks, shape = TASKS[task]
        finished, _ = run_pipeline(self._engine, body, tasks=tasks, shape=shape)
        return finished.data
