"""The pipeline of an afternoon around the same network: what anybody would write first, and what ours is worth.

The graph takes normalised floats and gives full-size logits; normalisation, arg-max, decoding of boxes and non-maximum
suppression are numpy, resizing is Pillow's. Both answer the same, but for the rounding of the resizers.

Run from the repository's root: `python -m tests.benchmarks.straightforward`
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import simplejpeg
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.answers.render import make_voc_palette
from service.commands.bench import run_pipeline
from service.engine.contract import METADATA_KEY, parse_contract
from service.engine.engine import load_engine
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus, keep_freed_memory
from service.settings import Settings

Float = NDArray[np.float32]

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
SCORE_THRESHOLD = 0.3


def make_plain_graph(path: Path) -> bytes:
    """Cut pre- and post-processing off an exported file: floats [N, 3, S, S] in; logits and raw boxes out.

    Returns:
        A model with the input `x` and the outputs `logits` [N, 21, S, S], `raw` [N, A, 84] and `class_logits` [N, 10].
    """
    proto = onnx.load(path)
    contract = parse_contract({entry.key: entry.value for entry in proto.metadata_props}[METADATA_KEY])
    nodes = list(proto.graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    convolution = next(node for node in nodes if node.op_type == "Conv")
    first = convolution.input[0]
    masks = next(node for node in nodes if node.op_type == "ArgMax").input[0]
    classes = next(node for node in nodes if node.op_type == "Softmax").input[0]
    raw = next(
        node.output[0]
        for node in nodes
        if node.op_type == "Concat"
        and len(node.input) == len(contract.detection_strides)
        and all(name in made_by and made_by[name].op_type == "Reshape" for name in node.input)
    )
    kept: list[Any] = []
    wanted, seen = [masks, raw, classes], {first}
    while wanted:
        name = wanted.pop()
        if name in seen or name not in made_by:
            continue
        node = made_by[name]
        seen.update(node.output)
        kept.append(node)
        wanted += list(node.input)
    ordered = [node for node in nodes if any(node is one for one in kept)]
    for node in ordered:
        for i, name in enumerate(node.input):
            if name == first:
                node.input[i] = "x"
    stride = float(contract.mask_stride)
    scales = numpy_helper.from_array(np.array([1, 1, stride, stride], dtype=np.float32), "plain_scales")
    size = contract.input_size
    graph = helper.make_graph(
        [
            *ordered,
            helper.make_node("Resize", [masks, "", "plain_scales"], ["logits"], mode="linear"),
            helper.make_node("Transpose", [raw], ["raw"], perm=[0, 2, 1]),
            helper.make_node("Identity", [classes], ["class_logits"]),
        ],
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("logits", "raw", "class_logits")],
        [*(_undo_scale(tensor, convolution.input[1]) for tensor in proto.graph.initializer), scales],
    )
    # What only the shape of `images` was asked for takes the same first dimension from `x`.
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "images":
                node.input[i] = "x"
    return bytes(
        helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version).SerializeToString()
    )


def _undo_scale(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Give the first convolution weights for pixels that are normalised already; others as they are."""
    if tensor.name != name:
        return tensor
    weights = numpy_helper.to_array(tensor) * (255 * STD).reshape(1, 3, 1, 1)
    return numpy_helper.from_array(weights.astype(np.float32), name)


class PlainPipeline:
    """Bytes to JSON, as anybody would write it first; one session of one thread."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(make_plain_graph(path), options, providers=["CPUExecutionProvider"])
        self._contract = load_engine(path, threads=1).contract
        self._points, self._strides = _make_points(self._contract.input_size, self._contract.detection_strides)

    def answer(self, body: bytes) -> bytes:
        """Take one picture from bytes to the JSON of /predict."""
        picture = simplejpeg.decode_jpeg(body, colorspace="RGB")
        height, width = picture.shape[:2]
        size = self._contract.input_size
        scale = size / max(width, height)
        small = Image.fromarray(picture).resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
        )
        canvas = np.full((size, size, 3), self._contract.letterbox.fill, dtype=np.uint8)
        canvas[: small.height, : small.width] = np.asarray(small)
        x = ((canvas.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        logits, raw, class_logits = self._session.run(None, {"x": np.ascontiguousarray(x)})
        ids = logits[0].argmax(axis=0).astype(np.uint8)[: small.height, : small.width]
        mask = np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
        answer = {
            "image": {"width": width, "height": height},
            "segments": self._segments(mask),
            "mask": {"encoding": "png", "data": base64.b64encode(_to_png(mask)).decode()},
            "detections": self._detections(raw[0], scale, width, height),
            "classes": self._classes(class_logits[0]),
        }
        return json.dumps(answer).encode()

    def _segments(self, mask: NDArray[np.uint8]) -> list[dict[str, Any]]:
        names = self._contract.segmentation_classes
        labels, counts = np.unique(mask, return_counts=True)
        return [
            {
                "label": names[labels[i]],
                "label_id": int(labels[i]),
                "pixels": int(counts[i]),
                "fraction": counts[i] / mask.size,
            }
            for i in np.argsort(-counts).tolist()
        ]

    def _detections(self, raw: Float, scale: float, width: int, height: int) -> list[dict[str, Any]]:
        distances, scores = np.logaddexp(0, raw[:, :4]) * self._strides[:, None], 1 / (1 + np.exp(-raw[:, 4:]))
        corners = np.concatenate([self._points - distances[:, :2], self._points + distances[:, 2:]], axis=1) / scale
        boxes: Float = corners.clip(0, [width, height, width, height]).astype(np.float32)
        found: list[dict[str, Any]] = []
        for label in range(scores.shape[1]):
            chosen = np.flatnonzero(scores[:, label] >= SCORE_THRESHOLD)
            order = chosen[np.argsort(-scores[chosen, label])]
            for i in _suppress(boxes[order], self._contract.iou_threshold):
                index = order[i]
                found.append(
                    {
                        "box": [round(float(side), 2) for side in boxes[index]],
                        "label": self._contract.detection_classes[label],
                        "label_id": label,
                        "score": round(float(scores[index, label]), 6),
                    }
                )
        return sorted(found, key=lambda item: -item["score"])[: self._contract.max_detections]

    def _classes(self, logits: Float) -> list[dict[str, Any]]:
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        return [
            {"label": self._contract.classification_classes[i], "label_id": int(i), "probability": float(probs[i])}
            for i in np.argsort(-probs)[:5]
        ]


def _make_points(size: int, strides: Sequence[int]) -> tuple[Float, Float]:
    points, sides = [], []
    for stride in strides:
        centres = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        points.append(grid)
        sides.append(np.full(len(grid), stride, dtype=np.float32))
    return np.concatenate(points), np.concatenate(sides)


def _suppress(boxes: Float, iou_threshold: float) -> list[int]:
    """Non-maximum suppression of boxes [K, 4] xyxy, best first."""
    keep: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i, box in enumerate(boxes):
        corner, far = np.maximum(boxes[keep, :2], box[:2]), np.minimum(boxes[keep, 2:], box[2:])
        both = (far - corner).clip(0).prod(axis=1)
        if not (both / (areas[keep] + areas[i] - both) > iou_threshold).any():
            keep.append(i)
    return keep


def _to_png(mask: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(mask)
    picture.putpalette(make_voc_palette().tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def count_per_second(
    answer: Callable[[bytes], object], bodies: Sequence[bytes], *, workers: int, seconds: float
) -> float:
    """Pictures a second with `workers` threads that do nothing else."""
    stop = time.perf_counter() + seconds

    def work(number: int) -> int:
        count = 0
        while time.perf_counter() < stop:
            answer(bodies[(number + count) % len(bodies)])
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        counts = list(pool.map(work, range(workers)))
    return sum(counts) / (time.perf_counter() - started)


def main() -> None:
    """Measure both in turns, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--pictures", type=Path, default=GOLDEN_PICTURES)
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(options.pictures.glob("*.jpg"))]
    plain, engine = PlainPipeline(options.model), load_engine(options.model, threads=1)
    keep_freed_memory()
    rates: dict[str, list[float]] = {"straightforward": [], "ours": []}
    for _ in range(options.rounds):
        for name, answer in (("straightforward", plain.answer), ("ours", lambda body: run_pipeline(engine, body))):
            rates[name].append(count_per_second(answer, bodies, workers=options.workers, seconds=options.seconds))
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["straightforward"], strict=True)]
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    print(json.dumps({**medians, "ratio": round(statistics.median(ratios), 2), "workers": options.workers}))


if __name__ == "__main__":
    main()
