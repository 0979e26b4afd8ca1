"""The one forward pass: a batch of letterboxed pictures through one ONNX file."""

from __future__ import annotations

import hashlib
import stat
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.contract import ELEMENT_TYPES, INPUT_NAME, METADATA_KEY, OUTPUT_NAMES, ModelContract, parse_contract
from service.engine.output_check import find_fault, find_wrong_shape
from service.errors import ContractError, ModelOutputInvalid
from service.pictures.imaging import FloatArray, UInt8Array

CPU: Final = ("CPUExecutionProvider",)
_FATAL = 4
# Whether more threads are worth it is seen in so many passes, each after a pause as between pictures that come alone.
_ROUNDS, _PAUSE_S, _WORTH_IT = 5, 0.02, 0.9
_MAX_MODEL_BYTES = 2**31 - 1  # of a protocol buffer


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says about one letterboxed picture; all three tasks, from one pass.

    Attributes:
        boxes: [K, 4] xyxy; in input pixels; highest score first, K = detections found.
        scores: [K] 0..1.
        labels: [K] index into the contract's detection_classes.
        mask: [S / mask_stride, S / mask_stride] class ids.
        class_probs: [C] sums to 1, in the order of the contract's classification_classes.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: NDArray[np.int64]
    mask: UInt8Array
    class_probs: FloatArray

    @property
    def nbytes(self) -> int:
        """Bytes of the five arrays."""
        return sum(array.nbytes for array in (self.boxes, self.scores, self.labels, self.mask, self.class_probs))


class Session(Protocol):
    """The seam to the runtime: everything behind it can be replaced by a ten-line fake."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the arrays of `OUTPUT_NAMES` out, each with leading N."""
        ...


class OnnxSession:
    """One ONNX file in ONNX Runtime; safe to call from several threads."""

    def __init__(self, model: bytes, *, threads: int = 0, providers: Sequence[str] = CPU, name: str = "model") -> None:
        """Load a model.

        Args:
            model: the bytes of an ONNX file without external data.
            threads: of one forward pass; 0 lets ONNX Runtime choose.
            providers: execution providers of ONNX Runtime, the preferred one first.
            name: what to call the model in errors.

        Raises:
            ContractError: it is no ONNX model, does not carry a contract that fits it, or a provider is not there.
        """
        missing = set(providers) - set(ort.get_available_providers())
        if missing:
            here = ", ".join(ort.get_available_providers())
            raise ContractError(f"ONNX Runtime has no {', '.join(sorted(missing))} here; it has {here}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Errors are raised with the same words; lines on stderr beside the log would have no format, and might block.
        options.log_severity_level = _FATAL
        ort.set_default_logger_severity(_FATAL)
        # Spinning threads would take the cores that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Falling back, it would print to stdout, and try once more what has just failed.
            self._session = ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
        except Exception as error:
            words = " ".join(str(error).split())
            raise ContractError(f"{name}: ONNX Runtime cannot load it: {words}") from error
        self.sha256 = hashlib.sha256(model).hexdigest()
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise ContractError(f"{name}: its metadata are no text: {error}") from error
        if METADATA_KEY not in metadata:
            raise ContractError(f"{name}: no {METADATA_KEY!r} in its metadata; export it with `unihead-export onnx`")
        self.contract = parse_contract(metadata[METADATA_KEY])
        found = tuple(output.name for output in self._session.get_outputs())
        if found != OUTPUT_NAMES:
            raise ContractError(f"{name}: outputs are {found}, the contract lists {OUTPUT_NAMES}; export it again")
        self._check_shapes(name)

    def _check_shapes(self, name: str) -> None:
        """Compare what the graph declares with what the contract implies; N may be anything."""
        size = self.contract.input_size
        wanted = {INPUT_NAME: (size, size, 3), **self.contract.output_shapes}
        for value in (*self._session.get_inputs(), *self._session.get_outputs()):
            shape = wanted.get(value.name)
            # A dimension without a number is one that the exporter could not tell; the run shows it.
            if (
                shape is None
                or len(value.shape) != len(shape) + 1
                or any(isinstance(one, int) and one != two for one, two in zip(value.shape[1:], shape, strict=True))
            ):
                raise ContractError(
                    f"{name}: {value.name} has the shape {value.shape}, the contract wants N and {list(shape or ())}"
                )
            if value.type != ELEMENT_TYPES[value.name]:
                raise ContractError(f"{name}: {value.name} is {value.type}, not {ELEMENT_TYPES[value.name]}")

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the arrays of `OUTPUT_NAMES` out, each with leading N."""
        return dict(zip(OUTPUT_NAMES, self._session.run(OUTPUT_NAMES, {INPUT_NAME: images}), strict=True))


class Engine:
    """A session and what it means.

    Attributes:
        contract: what the model file says about itself.
        sha256: of the model file; empty where there is none.
        alone_threads: of a pass that has the machine for itself.
    """

    def __init__(
        self,
        session: Session,
        contract: ModelContract,
        sha256: str = "",
        *,
        wide_session: Session | None = None,
        wide_threads: int = 1,
    ) -> None:
        """Put together what belongs together.

        Args:
            session: runs passes, several at once.
            contract: of its model.
            sha256: of its model file.
            wide_session: the same model on more threads, for a pass that has the machine for itself.
            wide_threads: how many.
        """
        self.contract = contract
        self.sha256 = sha256
        self._shapes = contract.output_shapes
        self._session = session
        self._wide_session = wide_session or session
        self.alone_threads = wide_threads

    def warm_up(self) -> None:
        """Run each session twice, for the first passes of a model are slow; keep the wide one if it is faster.

        Raises:
            ContractError: the model does not answer, or not as a model can.
        """
        size = self.contract.input_size
        blank = np.zeros((size, size, 3), dtype=np.uint8)
        try:
            for alone in (False, True) if self._wide_session is not self._session else (False,):
                for _ in range(2):
                    self.predict([blank], alone=alone)
            if self._wide_session is not self._session and not self._is_wide_faster(blank):
                self._wide_session, self.alone_threads = self._session, 1
        except Exception as error:  # a runtime raises what it likes
            raise ContractError(f"the model cannot answer a blank picture: {error}") from error

    def _is_wide_faster(self, blank: UInt8Array) -> bool:
        """Measure it here: waking sleeping threads for each layer may take longer than they save."""
        took_s: dict[bool, list[float]] = {False: [], True: []}
        pause = threading.Event()  # time.sleep fails where tests turn the clock (libfaketime)
        for alone in (False, True) * _ROUNDS:
            pause.wait(_PAUSE_S)
            started = time.perf_counter()
            self.predict([blank], alone=alone)
            took_s[alone].append(time.perf_counter() - started)
        return statistics.median(took_s[True]) < _WORTH_IT * statistics.median(took_s[False])

    def predict(self, images: Sequence[UInt8Array], *, alone: bool = False) -> list[Prediction]:
        """Run one forward pass.

        Args:
            images: N letterboxed pictures, each [S, S, 3] RGB uint8.
            alone: no other pass runs beside this one.

        Returns:
            One prediction a picture.

        Raises:
            ModelOutputInvalid: what the model says about one of them cannot be true.
        """
        predictions = []
        for outcome in self.predict_each(images, alone=alone):
            if isinstance(outcome, ModelOutputInvalid):
                raise outcome
            predictions.append(outcome)
        return predictions

    def predict_each(
        self, images: Sequence[UInt8Array], *, alone: bool = False
    ) -> list[Prediction | ModelOutputInvalid]:
        """Run one forward pass as `predict` does; a picture about which the answer cannot be true fails no other."""
        session = self._wide_session if alone else self._session
        outputs = session.run(images[0][None] if len(images) == 1 else np.stack(images))
        wrong = find_wrong_shape(outputs, self._shapes, len(images))
        if wrong:
            return [ModelOutputInvalid(wrong) for _ in images]
        return [self._read(outputs, index) for index in range(len(images))]

    def _read(self, outputs: Mapping[str, NDArray[Any]], index: int) -> Prediction | ModelOutputInvalid:
        fault = find_fault(outputs, index, self.contract)
        if fault:
            return ModelOutputInvalid(fault)
        count = int(outputs["num_detections"][index])
        return Prediction(
            boxes=outputs["boxes"][index, :count].astype(np.float32, copy=False),
            scores=outputs["scores"][index, :count].astype(np.float32, copy=False),
            labels=outputs["labels"][index, :count].astype(np.int64, copy=False),
            mask=outputs["mask"][index].astype(np.uint8, copy=False),
            class_probs=outputs["class_probs"][index].astype(np.float32, copy=False),
        )


def read_model(path: Path) -> bytes:
    """Read a model file.

    Raises:
        ContractError: it cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ContractError(f"{path}: the model file is no file")
        if not 0 < found.st_size <= _MAX_MODEL_BYTES:
            raise ContractError(f"{path}: the model file has {found.st_size} bytes, which is no size of an ONNX model")
        return path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: the model file cannot be read: {error.strerror}") from error


def load_engine(
    path: Path, *, threads: int = 0, wide_threads: int | None = None, providers: Sequence[str] = CPU
) -> Engine:
    """Read a model file once, and load it.

    Args:
        path: the ONNX file.
        threads: of one forward pass; 0 lets ONNX Runtime choose.
        wide_threads: of a pass that runs alone; None means `threads`.
        providers: execution providers of ONNX Runtime, the preferred one first.

    Raises:
        ContractError: the file cannot be read, or see `OnnxSession`.
    """
    return build_engine(
        read_model(path), threads=threads, wide_threads=wide_threads, providers=providers, name=str(path)
    )


def build_engine(
    model: bytes,
    *,
    threads: int = 0,
    wide_threads: int | None = None,
    providers: Sequence[str] = CPU,
    name: str = "model",
) -> Engine:
    """Load a model from bytes; arguments and errors as in `load_engine`."""
    session = OnnxSession(model, threads=threads, providers=providers, name=name)
    wide = None
    if wide_threads not in {None, threads}:
        wide = OnnxSession(model, threads=wide_threads or 0, providers=providers, name=name)
    alone_threads = threads if wide_threads is None else wide_threads
    return Engine(session, session.contract, session.sha256, wide_session=wide, wide_threads=alone_threads)
