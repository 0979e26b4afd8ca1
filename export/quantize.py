"""An exported file with its neck and branches in int8, which may take over only if it is as good and faster.

The backbone stays in float32: quantised it costs ten points of mIoU, and ONNX Runtime does not fuse its hard-swish then
(docs/experiments.md).
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from service.engine.contract import INPUT_NAME, METADATA_KEY, parse_contract
from service.engine.engine import Engine, load_engine
from service.engine.golden import GOLDEN_PICTURES, add_golden
from service.pictures.imaging import UInt8Array

# Parameters keep the names that they have in the network (training.models.multitask).
_PARTS = ("model.neck.", "model.head.detection.", "model.head.segmentation.")
# Fewer channels are not worth the conversions around them.
_LEAST_CHANNELS = 16
# The three that decide, in the words of `export.parity.compare_metrics`.
GUARDED = ("segmentation/mean_iou", "detection/map_50", "classification/top_1")
MAX_DROP = 0.01
_WARM_UP = 5


class QuantizationError(ValueError):
    """A file cannot be quantised."""


class _Squares(CalibrationDataReader):  # type: ignore[misc]  # it ships no types
    def __init__(self, squares: Sequence[UInt8Array]) -> None:
        self._squares: Iterator[UInt8Array] = iter(squares)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        square = next(self._squares, None)
        return None if square is None else {INPUT_NAME: square[None]}


def quantize(source: Path, out: Path, squares: Sequence[UInt8Array], *, golden: Path = GOLDEN_PICTURES) -> list[str]:
    """Write a file in QDQ form: unsigned activations, signed weights with a scale a channel (arXiv:2004.09602, sec. 4).

    Args:
        source: a file of `unihead-export onnx`.
        out: the file to write; its version ends in -int8, its golden answers are its own.
        squares: letterboxed training pictures, [S, S, 3] RGB each, to calibrate the activations with.
        golden: folder of the golden pictures.

    Returns:
        The convolutions that were quantised, by the names of their weights.

    Raises:
        QuantizationError: there are no pictures, or nothing to quantise.
    """
    if not squares:
        raise QuantizationError("calibration needs training pictures, got none")
    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    contract = parse_contract(metadata[METADATA_KEY])
    onnxruntime.set_default_logger_severity(3)  # it warns about what it tidies up itself
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        chosen = choose_convolutions(onnx.load(prepared))
        if not chosen:
            raise QuantizationError(f"{source} has no 1 x 1 convolutions in its neck and branches")
        quantize_static(
            prepared,
            out,
            _Squares(squares),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(chosen),
        )
    contract = dataclasses.replace(contract, version=f"{contract.version}-int8")
    _write_contract(out, contract.to_json())
    contract = add_golden(contract, load_engine(out, threads=1), golden)
    _write_contract(out, contract.to_json())
    return list(chosen.values())


def choose_convolutions(proto: onnx.ModelProto) -> dict[str, str]:
    """Find the 1 x 1 convolutions of neck and branches: node name to the name of its weights."""
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    chosen = {}
    for node in proto.graph.node:
        if node.op_type != "Conv" or not node.input[1].startswith(_PARTS):
            continue
        out_channels, in_channels, *kernel = shapes[node.input[1]]
        if kernel == [1, 1] and min(out_channels, in_channels) >= _LEAST_CHANNELS:
            chosen[node.name] = node.input[1]
    return chosen


def compare_times(one: Engine, two: Engine, squares: Sequence[UInt8Array], *, passes: int = 100) -> tuple[float, float]:
    """Median milliseconds of a pass of both engines, measured in turns so that a busy machine slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(passes + _WARM_UP):
        square = squares[number % len(squares)]
        for engine, kept in zip((one, two), times, strict=True):
            started = time.perf_counter()
            engine.predict([square])
            kept.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0][_WARM_UP:]), statistics.median(times[1][_WARM_UP:])


def find_objections(metrics: Mapping[str, tuple[float, float]], times_ms: tuple[float, float]) -> list[str]:
    """Say why an int8 file must not take over; empty if it may.

    Args:
        metrics: by "task/metric", of the float32 file and of the int8 one, 0..1.
        times_ms: of a pass, in the same order.
    """
    objections = [
        f"{name} falls from {before:.4f} to {after:.4f}, by more than {MAX_DROP}"
        for name, (before, after) in metrics.items()
        if name in GUARDED and not after >= before - MAX_DROP
    ]
    if times_ms[1] >= times_ms[0]:
        objections.append(f"a pass takes {times_ms[1]:.2f} ms, no less than {times_ms[0]:.2f}")
    return objections


def _write_contract(path: Path, text: str) -> None:
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {METADATA_KEY: text})
    proto.producer_name = "unihead"
    # The quantiser names the domains of operators that it might have used; a file may ask only for those that it does.
    used = {node.domain for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
