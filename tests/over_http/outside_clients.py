"""Run by the interpreter of an environment with the stock clients: asks a service, and prints what they made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import codeprojectai.core
import deepstack.core
import deepstack_sdk


def ask_all(host: str, port: int, picture: Path) -> dict[str, object]:
    content = picture.read_bytes()
    server = deepstack_sdk.ServerConfig(f"http://{host}:{port}")
    objects = deepstack.core.DeepstackObject(host, port).detect(content)
    custom = deepstack.core.DeepstackObject(host, port, custom_model="unihead", min_confidence=0.01).detect(content)
    scene = deepstack.core.DeepstackScene(host, port).recognize(content)
    others = codeprojectai.core.CodeProjectAIObject(host, port).detect(content)
    found = deepstack_sdk.Detection(server).detectObject(content)
    named = deepstack_sdk.Detection(server, name="general").detectObject(str(picture), min_confidence=0.01)
    recognised = deepstack_sdk.SceneRecognition(server).recognizeScene(content)
    try:
        deepstack.core.DeepstackObject(host, port, custom_model="nothing").detect(content)
        refused = ""
    except deepstack.core.DeepstackException as error:
        refused = str(error)
    return {
        "deepstack-python": [deepstack.core.get_objects(objects), len(custom), scene["label"]],
        "codeproject-ai-api": [codeprojectai.core.get_objects(others)],
        "deepstack-sdk": [[one.label for one in found], len(named), recognised.label],
        "box": [found[0].x_min, found[0].y_min, found[0].x_max, found[0].y_max],
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(ask_all(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
