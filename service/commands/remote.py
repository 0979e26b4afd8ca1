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
    Unauthorized,
    UniheadError,
    UnreadableAnswer,
)
from service.commands.endpoint import explain_unauthorized
from service.commands.local import NO_ANSWERS, WRONG_USAGE, PictureError, PictureResult, RunEnded

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
            RunEnded: the service cannot be reached, or wants another key.
        """
        self._client = Client(url, key, timeout_s=TIMEOUT_S, retries=RETRIES)
        self._url, self._wanted, self._drawn = url, wanted, drawn
        self._options: Options = {
            **options,
            "tasks": wanted.parts,
            "mask": "segment" in wanted.parts and (drawn or wanted.mask != "none"),
        }
        try:
            self.version = str(self._client.info()["model"]["version"])
        except UniheadError as error:
            self._client.close()
            raise self._end(error) from error

    def ask(self, picture: bytes) -> PictureResult:
        """Send one picture; see `Answerer`."""
        try:
            result = self._client.predict(picture, **self._options)
        except (InvalidParameter, NoAnswer, Unauthorized, UnreadableAnswer) as error:
            raise self._end(error) from error
        except UniheadError as error:
            raise PictureError(error.code or f"status_{error.status}", error.detail) from error
        return PictureResult(self._write(result), result.mask if self._drawn else None)

    def _end(self, error: UniheadError) -> RunEnded:
        if isinstance(error, Unauthorized):
            return RunEnded(explain_unauthorized(self._url), NO_ANSWERS)
        return RunEnded(str(error), WRONG_USAGE if isinstance(error, InvalidParameter) else NO_ANSWERS)

    def _write(self, result: Result) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "model": dict(result.model),
            "image": {"width": result.width, "height": result.height},
        }
        if "segment" in self._wanted.parts:
            parts["segments"] = [asdict(one) for one in result.segments]
            if self._wanted.mask != "none" and result.mask is not None:
                runs = encode_rle(result.mask)
                parts["mask"] = {
                    "encoding": "rle",
                    "size": [result.height, result.width],
                    "segments": [{"label_id": one, "counts": counts} for one, counts in runs.items()],
                }
        if "detect" in self._wanted.parts:
            parts["detections"] = [{**asdict(one), "box": list(one.box)} for one in result.detections]
        if "classify" in self._wanted.parts:
            parts["classes"] = [asdict(one) for one in result.classes]
        return {**parts, "timing_ms": dict(result.timing_ms)}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
