"""What a user would run otherwise: three networks of torchvision, each for one task, behind one plain FastAPI app.

Their weights are random, which changes no time. Everything is made easy for them: one process, inputs no larger than
they were made for, the detector without its non-maximum suppression. `python -m tests.benchmarks.peers.three_networks
export FOLDER` writes the files, `... serve FOLDER PORT` serves them.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from service.machine import available_cpus, keep_freed_memory
from service.pictures.imaging import decode_for, letterbox

SIZES = {"segment": 320, "detect": 320, "classify": 224}
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def export(folder: Path) -> None:
    """Write segment.onnx, detect.onnx and classify.onnx."""
    import torch  # noqa: PLC0415 - serving needs none
    from torch import Tensor, nn  # noqa: PLC0415 - only the export has torch
    from torchvision.models import mobilenet_v3_small  # noqa: PLC0415 - only the export has torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large  # noqa: PLC0415 - only the export has torch
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large  # noqa: PLC0415 - only the export has torch

    class Segment(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x)["out"]
            return logits

    class Detect(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            found = self.net.head(list(self.net.backbone(x).values()))
            return found["bbox_regression"], found["cls_logits"]

    networks = {"segment": Segment(), "detect": Detect(), "classify": mobilenet_v3_small(weights=None)}
    folder.mkdir(parents=True, exist_ok=True)
    for task, network in networks.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own calls
            size = SIZES[task]
            torch.onnx.export(
                network.eval(),
                (torch.zeros(1, 3, size, size),),
                folder / f"{task}.onnx",
                input_names=["x"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )


class Network:
    """One file, one thread, and what has to be done around it."""

    def __init__(self, path: Path, size: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._size = size

    def run(self, body: bytes) -> tuple[list[NDArray[Any]], tuple[int, int]]:
        """Bytes to the network's outputs and the picture's width and height."""
        picture, original = decode_for(self._size, body)
        square, _ = letterbox(picture, self._size, (124, 116, 104), original=original)
        x = ((square.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        return self._session.run(None, {"x": np.ascontiguousarray(x)}), original


def finish_segment(outputs: list[NDArray[Any]], size: tuple[int, int]) -> dict[str, Any]:
    """Arg-max, back to the original's size, PNG."""
    ids = outputs[0][0].argmax(axis=0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ids).resize(size, Image.Resampling.NEAREST).save(file, "PNG", compress_level=1)
    return {"mask": base64.b64encode(file.getvalue()).decode()}


def finish_detect(outputs: list[NDArray[Any]], _: tuple[int, int]) -> dict[str, Any]:
    """The hundred best anchors."""
    scores = outputs[1][0][:, 1:].max(axis=1)
    best = np.argpartition(-scores, 100)[:100]
    return {"boxes": outputs[0][0][best].tolist(), "scores": scores[best].tolist()}


def finish_classify(outputs: list[NDArray[Any]], _: tuple[int, int]) -> dict[str, Any]:
    """The five best classes."""
    return {"classes": np.argsort(-outputs[0][0])[:5].tolist()}


def build_app(folder: Path) -> FastAPI:
    """Three routes, one thread pool."""
    finish: dict[str, Callable[[list[NDArray[Any]], tuple[int, int]], dict[str, Any]]] = {
        "segment": finish_segment,
        "detect": finish_detect,
        "classify": finish_classify,
    }
    networks = {task: Network(folder / f"{task}.onnx", size) for task, size in SIZES.items()}
    pool = ThreadPoolExecutor(available_cpus())
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/{task}")
    async def answer(task: str, request: Request) -> Response:
        body = await request.body()
        work = asyncio.get_running_loop().run_in_executor(
            pool, lambda: json.dumps(finish[task](*networks[task].run(body)))
        )
        return Response(await work, media_type="application/json")

    return app


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]))
    else:
        keep_freed_memory()
        uvicorn.run(build_app(Path(sys.argv[2])), port=int(sys.argv[3]), log_level="error", access_log=False)
