"""A foreign network: its ONNX file held against its description, fed with pictures, and its outputs decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.onnx_file import inspect_onnx
from service.engine.session import CPU, read_model
from service.errors import ContractError
from service.pictures.imaging import UInt8Array
from training.data.labelling.answers import Answer
from training.data.labelling.decoding import (
    decode_boxes,
    decode_classes,
    decode_mask_ids,
    decode_mask_logits,
    decode_yolox,
)
from training.data.labelling.faults import LabellingError
from training.data.labelling.teacher_file import BoxLists, ClassLogits, MaskIds, MaskLogits, load_teacher_file
from training.data.placement import Placement

# ONNX's own operators, those of classic models, and those that ONNX Runtime itself brings and writes when it optimises.
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_PIXELS: Final[dict[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_SIZES: Final[dict[str, type[np.generic]]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
}
_FATAL: Final = 4


class Network:
    """One teacher, loaded; several threads may ask it at once.

    Attributes:
        path: of its ONNX file.
        description: what its TOML says.
        sha256: of the ONNX file, in hex.
        key: SHA-256 of the file and all of its description, for what is kept of its answers.
        names: classes that its answers are positions of.
    """

    def __init__(self, path: Path, *, threads: int = 1, change: Callable[[bytes], bytes] | None = None) -> None:
        """Load a teacher.

        Args:
            path: its TOML, or its ONNX file with the TOML beside it.
            threads: of one pass; with one the answers do not depend on the machine's number of cores.
            change: what is run in place of the file, which goes by the file's `sha256` and `key` all the same.

        Raises:
            LabellingError: there is no such teacher, or its file is not what its description says.
        """
        self.description, self.path = load_teacher_file(path)
        self.names = self.description.names
        try:
            model = read_model(self.path)
        except ContractError as error:
            raise LabellingError(str(error)) from error
        self.sha256 = hashlib.sha256(model).hexdigest()
        described = self.description.model_dump_json(exclude={"model"})
        self.key = hashlib.sha256(f"{self.sha256}|{described}".encode()).hexdigest()
        try:
            self._session = _open(change(model) if change else model, threads)
            self._inputs = {one.name: one for one in self._session.get_inputs()}
            self._feed = self._check_inputs()
            self._outputs = self._choose_outputs()
        except (ContractError, LabellingError) as error:
            raise LabellingError(f"{self.path}: {error}") from error
        places = {name: place for place, name in enumerate(self.names)}
        by_position = self.description.classes.by_position()
        self.columns = np.array([-1 if name is None else places[name] for name in by_position], dtype=np.int64)

    def answer(self, image: UInt8Array) -> Answer:
        """Ask about one picture, [H, W, 3] upright RGB.

        Raises:
            LabellingError: what came is not what the description says.
        """
        canvas, placement = self.description.input.frame.show(image)
        try:
            return self._decode(self.run(canvas, (image.shape[1], image.shape[0])), placement)
        except LabellingError as error:
            raise LabellingError(f"{self.path}: {error}") from error

    def run(self, canvas: UInt8Array, original: tuple[int, int]) -> Mapping[str, NDArray[Any]]:
        """One pass.

        Args:
            canvas: [height, width, 3] RGB, as large as the input.
            original: width and height of the picture; in pixels.

        Returns:
            The outputs that the description names, by name, as the network gives them.

        Raises:
            LabellingError: ONNX Runtime cannot run it.
        """
        return self.run_batch(canvas[None], original)

    def run_batch(self, canvases: UInt8Array, original: tuple[int, int]) -> Mapping[str, NDArray[Any]]:
        """One pass over [N, height, width, 3]: more than one, or of another size, where the file leaves that open.

        Args:
            canvases: RGB.
            original: width and height of the pictures, for a network that is told; in pixels.

        Raises:
            LabellingError: as `run`.
        """
        shape = self.description.input
        pixels: NDArray[Any] = canvases[..., ::-1] if shape.colour == "bgr" else canvases
        if self._feed is not np.uint8:
            mean, std = (np.array(values, dtype=np.float32) for values in (shape.mean, shape.std))
            pixels = (pixels.astype(np.float32) * np.float32(shape.scale / 255) - mean) / std
        pixels = pixels if shape.layout == "nhwc" else pixels.transpose(0, 3, 1, 2)
        feed = {self._image: np.ascontiguousarray(pixels, dtype=self._feed)}
        if shape.size_name is not None:
            output = self.description.output
            is_original = isinstance(output, BoxLists) and output.unit == "original"
            size = original if is_original else (shape.frame.width, shape.frame.height)
            kind = _SIZES[self._inputs[shape.size_name].type]
            feed[shape.size_name] = np.array([size if shape.size_order == "wh" else size[::-1]], dtype=kind)
        try:
            values = self._session.run(list(self._outputs), feed)
        except Exception as error:  # ONNX Runtime's errors have no class in common
            raise LabellingError(f"ONNX Runtime cannot run it: {' '.join(str(error).split())}") from error
        return dict(zip(self._outputs, values, strict=True))

    def _decode(self, outputs: Mapping[str, NDArray[Any]], placement: Placement) -> Answer:
        output, columns, count = self.description.output, self.columns, len(self.names)
        if isinstance(output, BoxLists):
            return decode_boxes(outputs, output, columns, placement)
        (only,) = outputs.values()
        if isinstance(output, ClassLogits):
            return decode_classes(only, output, columns, count)
        if isinstance(output, MaskLogits):
            return decode_mask_logits(only, output, columns, count, placement)
        if isinstance(output, MaskIds):
            return decode_mask_ids(only, columns, placement)
        return decode_yolox(only, output, columns, placement)

    def _check_inputs(self) -> type[np.generic]:
        """Find the input that takes the picture; gives the type of its values."""
        shape = self.description.input
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in self._inputs.values())
        pictures = [name for name, one in self._inputs.items() if len(one.shape) == 4]  # noqa: PLR2004 - N, C, H, W
        name: str | None = shape.name or (pictures[0] if len(pictures) == 1 else None)
        if name is None or name not in pictures:
            raise LabellingError(f"its inputs are {found}; [input] name wants one of four dimensions, not {name!r}")
        self._image = name
        height, width = shape.frame.height, shape.frame.width
        sides = [3, height, width] if shape.layout == "nchw" else [height, width, 3]
        one = self._inputs[name]
        wrong = [(is_, want) for is_, want in zip(one.shape, [1, *sides], strict=True) if is_ != want]
        if any(isinstance(is_, int) for is_, _ in wrong):
            raise LabellingError(f"its input {name} is {one.shape}; [input] size and layout say {[1, *sides]}")
        if one.type not in _PIXELS:
            raise LabellingError(f"its input {name} is {one.type}; wanted {', '.join(_PIXELS)}")
        if one.type == "tensor(uint8)" and (shape.scale, shape.mean, shape.std) != (255, (0, 0, 0), (1, 1, 1)):
            raise LabellingError(f"its input {name} is bytes; [input] wants scale = 255 and no mean and std")
        told = [shape.size_name] if shape.size_name is not None else []
        if set(self._inputs) != {name, *told}:
            raise LabellingError(f"its inputs are {found}; [input] names {', '.join([name, *told])}")
        for each in told:
            if self._inputs[each].type not in _SIZES or len(self._inputs[each].shape) != 2:  # noqa: PLR2004 - N, 2
                raise LabellingError(f"its inputs are {found}; size_name wants [N, 2] whole numbers or floats")
        return _PIXELS[one.type]

    def _choose_outputs(self) -> tuple[str, ...]:
        output = self.description.output
        has = [one.name for one in self._session.get_outputs()]
        if isinstance(output, BoxLists):
            wanted = [output.boxes, output.scores, *([output.labels] if output.labels is not None else [])]
        elif output.name is None and len(has) == 1:
            wanted = has
        else:
            wanted = [output.name or "none"]
        if lacking := [name for name in wanted if name not in has]:
            raise LabellingError(f"its outputs are {', '.join(has)}; [output] names {lacking[0]}")
        return tuple(wanted)


def _open(model: bytes, threads: int) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    facts = inspect_onnx(model)
    if facts.external:
        raise LabellingError(f"{len(facts.external)} tensors lie in other files; export it as one file")
    if foreign := facts.domains - _DOMAINS:
        raise LabellingError(f"it has operators of {', '.join(sorted(foreign))}; only ONNX Runtime's own are run")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    try:
        return ort.InferenceSession(model, options, providers=list(CPU), enable_fallback=0)
    except Exception as error:  # as above
        raise LabellingError(f"ONNX Runtime cannot load it: {' '.join(str(error).split())}") from error
