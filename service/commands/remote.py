"""Answers about files from a running service, through its Python client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from service.answers.finish import Wanted
from service.answers.masks import encode_rle
from service.client import (
    Client,
    InvalidParameter,
    NoAnswer,
    Options,
    Result,
    TaskNotServed,
    Unauthorized,
    UniheadError,
    make_printable,
)
from service.commands.endpoint import explain_unauthorized
from service.commands.local import NO_ANSWERS, WRONG_USAGE, PictureError, PictureResult, RunEnded
from service.engine.contract import CLASSES_OF, MODEL_TASKS, ModelTask, make_not_served

# Nobody waits at a terminal for one of many pictures, and a service that is busy or starts anew is worth waiting for.
TIMEOUT_S = 60
RETRIES = 8


class RemoteAnswerer:
    """Asks a service, one request a picture."""

    def __init__(self, url: str, key: str | None, wanted: Wanted, options: Options, *, drawn: bool) -> None:
        """Ask which model answers.

        Args:
            url: of the service.
            key: of the service, if it wants one.
            wanted: what the answers hold.
            options: of each request beside its tasks.
            drawn: whether class ids are wanted, too.

        Raises:
            ValueError: the address is none.
            RunEnded: the service cannot be reached, wants another key, or has no model for what is wanted.
        """
        self._client = Client(url, key, timeout_s=TIMEOUT_S, retries=RETRIES)
        self._url, self._wanted, self._drawn = url, wanted, drawn
        try:
            info = self._client.info()
        except UniheadError as error:
            self._client.close()
            raise self._end(error) from error
        try:
            self.version = str(info["model"]["version"])
            self.classes: Mapping[ModelTask, tuple[str, ...]] = _read_classes(info.get("contract", {}))
        except (KeyError, TypeError, AttributeError) as error:
            self._client.close()
            raise RunEnded(f"{url}/info is not that of a unihead service", NO_ANSWERS) from error
        served = tuple(self.classes)
        self._tasks = served if wanted.tasks is None else wanted.tasks
        if not set(self._tasks) <= set(served):
            self._client.close()
            missing = (task for task in self._tasks if task not in served)
            raise RunEnded(str(make_not_served(missing, served)), WRONG_USAGE)
        # By name, so that all lines of a run say the same, whatever is loaded there meanwhile.
        self._options: Options = {
            **options,
            "tasks": self._tasks,
            "mask": "segment" in self._tasks and (drawn or wanted.mask != "none"),
        }

    def ask(self, picture: bytes) -> PictureResult:
        """Send one picture; see `Answerer`."""
        try:
            result = self._client.predict(picture, **self._options)
        except (InvalidParameter, TaskNotServed, Unauthorized) as error:
            raise self._end(error) from error
        except UniheadError as error:
            if isinstance(error, NoAnswer) and not self._is_there():
                raise self._end(error) from error
            raise PictureError(error.code or f"status_{error.status}", error.detail) from error
        self._check_names(result)
        return PictureResult(self._write(result), result.mask if self._drawn else None)

    def _is_there(self) -> bool:
        """Whether it was the picture alone that has no answer."""
        try:
            return self._client.ready()
        except UniheadError:
            return False

    def _check_names(self, result: Result) -> None:
        """Raise PictureError where classes are not those that the service has told of: it may have another model."""
        parts: dict[ModelTask, Any] = {"segment": result.segments, "detect": result.detections}
        for task, found in {**parts, "classify": result.classes}.items():
            names = dict(enumerate(self.classes.get(task, ())))
            for one in found:
                if names and names.get(one.label_id) != one.label:
                    sentence = f"{one.label_id} is no {one.label} in the model that the service told of before"
                    raise PictureError("unreadable_answer", sentence)

    def _end(self, error: UniheadError) -> RunEnded:
        if isinstance(error, Unauthorized):
            return RunEnded(explain_unauthorized(self._url), NO_ANSWERS)
        wrong = isinstance(error, InvalidParameter | TaskNotServed)
        return RunEnded(str(error), WRONG_USAGE if wrong else NO_ANSWERS)

    def _write(self, result: Result) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "model": dict(result.model),
            "image": {"width": result.width, "height": result.height},
        }
        if "segment" in self._tasks:
            parts["segments"] = [asdict(one) for one in result.segments]
            if self._wanted.mask != "none" and result.mask is not None:
                runs = encode_rle(result.mask)
                parts["mask"] = {
                    "encoding": "rle",
                    "size": [result.height, result.width],
                    "segments": [{"label_id": one, "counts": counts} for one, counts in runs.items()],
                }
        if "detect" in self._tasks:
            parts["detections"] = [{**asdict(one), "box": list(one.box)} for one in result.detections]
        if "classify" in self._tasks:
            parts["classes"] = [asdict(one) for one in result.classes]
        return {**parts, "timing_ms": dict(result.timing_ms)}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _read_classes(contract: Mapping[str, Any]) -> dict[ModelTask, tuple[str, ...]]:
    """Names of the classes of each task that a contract serves; without a word of it all three, with names unknown.

    Raises:
        KeyError, TypeError: it is no contract.
    """
    served = contract.get("tasks", MODEL_TASKS)
    names = {
        task: tuple(map(make_printable, contract.get(CLASSES_OF[task], ()))) for task in MODEL_TASKS if task in served
    }
    if not names:
        raise KeyError("tasks")
    return names
