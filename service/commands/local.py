"""Where answers about files come from: the model in this process, or, in `service.commands.remote`, a service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from service.answers.finish import Wanted, finish_json
from service.answers.schemas import PredictResponse
from service.engine.contract import CLASSES_OF, ModelTask
from service.engine.engine import Engine
from service.engine.postprocess import Answer
from service.engine.prepare import prepare
from service.errors import ModelOutputInvalid, RequestError, UniheadError
from service.pictures.imaging import UInt8Array
from service.pictures.limits import DEFAULT_LIMITS, PictureLimits
from service.telemetry.timing import Stopwatch

# Exit codes of a run that cannot begin or go on.
WRONG_USAGE, NO_ANSWERS = 2, 3


@dataclass(frozen=True, slots=True)
class PictureResult:
    """What is said about one picture.

    Attributes:
        parts: as POST /predict says it in JSON.
        class_ids: [H, W], if they are to be drawn.
    """

    parts: dict[str, Any]
    class_ids: UInt8Array | None


class PictureError(UniheadError):
    """One picture has no answer, and `code` says of which kind; the next one may have."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class RunEnded(UniheadError):
    """The run cannot begin or go on; `code` is what the command exits with."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class Answerer(Protocol):
    """Answers about pictures, for several threads at once.

    Attributes:
        version: of the model.
        classes: names by class id, of each task that the model serves.
    """

    version: str
    classes: Mapping[ModelTask, tuple[str, ...]]

    def ask(self, picture: bytes) -> PictureResult:
        """Answer about one picture, the bytes of a file.

        Raises:
            PictureError: this picture has no answer.
            RunEnded: no other will have one either.
        """
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


def run_pass(
    engine: Engine, picture: bytes, watch: Stopwatch, *, limits: PictureLimits = DEFAULT_LIMITS, alone: bool = False
) -> Answer:
    """Take one picture, the bytes of a file, through the network, as a worker of the service does; laps each stage."""
    square, place = prepare(picture, engine.contract, watch, limits=limits)
    (prediction,) = engine.predict([square], alone=alone)
    watch.lap("forward")
    return Answer(prediction, place, engine.contract)


class LocalAnswerer:
    """Takes a picture from bytes to JSON in the thread that asks."""

    def __init__(self, engine: Engine, wanted: Wanted, limits: PictureLimits, *, drawn: bool) -> None:
        """Take what a picture passes through.

        Args:
            engine: warm; its passes take one thread each.
            wanted: what the answers hold.
            limits: of a picture.
            drawn: whether class ids are wanted, too.

        Raises:
            TaskNotServed: the model does not serve a task that is wanted by name.
        """
        self.version = engine.contract.version
        self.classes: Mapping[ModelTask, tuple[str, ...]] = {
            task: getattr(engine.contract, CLASSES_OF[task]) for task in engine.contract.tasks
        }
        self._engine, self._wanted, self._limits = engine, wanted, limits
        self._drawn = "segment" in wanted.find_tasks(engine.contract) and drawn

    def ask(self, picture: bytes) -> PictureResult:
        """Decode, run the pass, and write; see `Answerer`."""
        watch = Stopwatch()
        try:
            answer = run_pass(self._engine, picture, watch, limits=self._limits)
        except (RequestError, ModelOutputInvalid) as error:
            raise PictureError(error.code, str(error)) from error
        content = finish_json(answer, watch, wanted=self._wanted, shape=PredictResponse)
        class_ids = None
        if self._drawn:
            class_ids = answer.mask()
        return PictureResult(json.loads(content.data), class_ids)

    def close(self) -> None:
        """Nothing is held."""
