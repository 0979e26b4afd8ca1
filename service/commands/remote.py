"""Answers about files from a running service, through its Python client."""

from __future__ import annotations

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
    UnreadableAnswer,
)
from service.commands.endpoint import explain_unauthorized
from service.commands.local import NO_ANSWERS, WRONG_USAGE, PictureError, PictureResult, RunEnded
from service.engine.contract import MODEL_TASKS, make_not_served

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
        self.version = str(info["model"]["version"])
        served = info["contract"].get("tasks", MODEL_TASKS)  # older services have models of all three
        self._tasks = tuple(served) if wanted.tasks is None else wanted.tasks
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
        except (InvalidParameter, NoAnswer, TaskNotServed, Unauthorized, UnreadableAnswer) as error:
            raise self._end(error) from error
        except UniheadError as error:
            raise PictureError(error.code or f"status_{error.status}", error.detail) from error
        return PictureResult(self._write(result), result.mask if self._drawn else None)

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
