"""The one forward pass: a batch of letterboxed pictures through one model, and whether what it says can be true."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import TASK_OF, ModelContract, make_not_served
from service.engine.session import CPU, OnnxSession, Session, read_model
from service.errors import ContractError, ModelOutputInvalid
from service.pictures.imaging import FloatArray, UInt8Array

# Whether more threads are worth it is seen in so many passes, each after a pause as between pictures that come alone.
_ROUNDS, _PAUSE_S, _WORTH_IT = 5, 0.02, 0.9


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says about one letterboxed picture, from one pass: the arrays of the tasks that it serves.

    An array of another task cannot be mistaken for an empty one, nor for None: to read it raises TaskNotServed.

    Attributes:
        arrays: by name, as the properties below have them.
    """

    arrays: Mapping[str, NDArray[Any]]

    @property
    def boxes(self) -> FloatArray:
        """[K, 4] xyxy; in input pixels; highest score first, K = detections found."""
        return self._read("boxes")

    @property
    def scores(self) -> FloatArray:
        """[K] 0..1."""
        return self._read("scores")

    @property
    def labels(self) -> NDArray[np.int64]:
        """[K] index into the contract's detection_classes."""
        return self._read("labels")

    @property
    def mask(self) -> UInt8Array:
        """[S / mask_stride, S / mask_stride] class ids."""
        return self._read("mask")

    @property
    def class_probs(self) -> FloatArray:
        """[C] sums to 1, in the order of the contract's classification_classes."""
        return self._read("class_probs")

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def _read(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise make_not_served([TASK_OF[name]], {TASK_OF[other] for other in self.arrays})
        return self.arrays[name]


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
        tasks, arrays = self.contract.tasks, dict[str, NDArray[Any]]()
        if "detect" in tasks:
            count = int(outputs["num_detections"][index])
            arrays["boxes"] = outputs["boxes"][index, :count].astype(np.float32, copy=False)
            arrays["scores"] = outputs["scores"][index, :count].astype(np.float32, copy=False)
            arrays["labels"] = outputs["labels"][index, :count].astype(np.int64, copy=False)
        if "segment" in tasks:
            arrays["mask"] = outputs["mask"][index].astype(np.uint8, copy=False)
        if "classify" in tasks:
            arrays["class_probs"] = outputs["class_probs"][index].astype(np.float32, copy=False)
        return Prediction(arrays)


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


def find_wrong_shape(outputs: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], images: int) -> str:
    """Say which output has not the wanted shape, those of a picture with their number before it; empty if all have."""
    for name, shape in shapes.items():
        if outputs[name].shape != (images, *shape):
            return f"{name} has the shape {outputs[name].shape}, not {(images, *shape)}"
    return ""


def find_fault(outputs: Mapping[str, NDArray[Any]], index: int, contract: ModelContract) -> str:
    """Say what cannot be true about one picture; empty if all can.

    Args:
        outputs: the arrays of a pass, of the right shapes.
        index: of the picture in them.
        contract: of the model.
    """
    numbers: dict[str, NDArray[Any]] = {}
    ids: dict[str, tuple[NDArray[Any], int]] = {}
    if "detect" in contract.tasks:
        count = int(outputs["num_detections"][index])
        if not 0 <= count <= contract.max_detections:
            return f"num_detections is {count}, not 0 to {contract.max_detections}"
        numbers = {name: outputs[name][index, :count] for name in ("boxes", "scores")}
        ids["labels"] = outputs["labels"][index, :count], len(contract.detection_classes)
    if "segment" in contract.tasks:
        ids["mask"] = outputs["mask"][index], len(contract.segmentation_classes)
    if "classify" in contract.tasks:
        numbers["class_probs"] = outputs["class_probs"][index]
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            return f"{name} holds values that are no finite numbers"
    for name, (values, classes) in ids.items():
        if values.size and not (values.max() < classes and values.min() >= 0):
            return f"{name} holds {values.min()} to {values.max()}, where there are {classes} classes"
    return ""
