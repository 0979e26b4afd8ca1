"""What a service answers over HTTP about the shipped pictures, beside what its model answered when it was exported."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from service.engine.contract import GoldenAnswer, GoldenDetection, ModelContract
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES, compare_answers
from service.settings import Settings


class AnswerError(Exception):
    """A service does not answer, or refuses; says how."""


def find_differences(port: int, key: str) -> list[str]:
    """Ask a service with the embedded model on 127.0.0.1 for every task by itself, and for all of them at once.

    Returns:
        One line for each answer that is another than the file carries; none if all are the same.

    Raises:
        AnswerError: it does not answer, or refuses.
    """
    contract = load_engine(Settings.model_fields["model"].default, threads=1).contract
    differences = []
    for wanted in contract.golden:
        body = (GOLDEN_PICTURES / wanted.file).read_bytes()
        boxes = f"score_threshold=0&max_detections={len(wanted.detections)}"
        classes = f"top_k={len(contract.classification_classes)}"
        single: dict[str, Any] = {}
        for path in ("segment", f"detect?{boxes}", f"classify?{classes}"):
            single |= _ask(port, path, body, key)
        together = _ask(port, f"predict?{boxes}&{classes}", body, key)
        for name, answer in (("/segment, /detect, /classify", single), ("/predict", together)):
            if found := compare_answers(_read_answer(answer, wanted, contract), wanted, contract.golden_tolerance):
                differences.append(f"{name} about {wanted.file}: {found}")
            if not _is_mask_counted(answer):
                differences.append(f"{name} about {wanted.file}: the mask has other pixels than the segments say")
    return differences


def _ask(port: int, path: str, body: bytes, key: str) -> dict[str, Any]:
    status, answer = post(port, path, body, {"Authorization": f"Bearer {key}", "Cache-Control": "no-cache"})
    if status != http.client.OK:
        raise AnswerError(f"POST /{path}: {status} {answer}")
    return answer


def post(port: int, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Send a picture; returns the status and what came with it.

    Raises:
        AnswerError: nothing came.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", f"/{path}", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise AnswerError(f"POST /{path}: {error!r}") from error
    finally:
        connection.close()


def _read_answer(answer: dict[str, Any], picture: GoldenAnswer, contract: ModelContract) -> GoldenAnswer:
    probabilities = {one["label"]: one["probability"] for one in answer["classes"]}
    return dataclasses.replace(
        picture,
        class_probs=tuple(probabilities[label] for label in contract.classification_classes),
        detections=tuple(
            GoldenDetection(tuple(one["box"]), one["label"], one["score"]) for one in answer["detections"]
        ),
        mask_fractions={one["label"]: one["fraction"] for one in answer["segments"]},
    )


def _is_mask_counted(answer: dict[str, Any]) -> bool:
    with Image.open(io.BytesIO(base64.b64decode(answer["mask"]["data"]))) as mask:
        counts = np.bincount(np.asarray(mask).reshape(-1))
        same_size = mask.size == (answer["image"]["width"], answer["image"]["height"])
    return same_size and {one["label_id"]: one["pixels"] for one in answer["segments"]} == {
        int(label): int(counts[label]) for label in np.flatnonzero(counts)
    }
