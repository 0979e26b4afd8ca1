"""The one forward pass: a batch of letterboxed pictures through one ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import INPUT_NAME, METADATA_KEY, OUTPUT_NAMES, ModelContract, parse_contract
from service.errors import ContractError
from service.imaging import FloatArray, UInt8Array


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


class Session(Protocol):
    """The seam to the runtime: everything behind it can be replaced by a ten-line fake."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the arrays of `OUTPUT_NAMES` out, each with leading N."""
        ...


class OnnxSession:
    """One ONNX file in ONNX Runtime, read once; safe to call from several threads."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Read, hash and load a model file.

        Args:
            path: the ONNX file; one file, no external data.
            threads: of one forward pass; 0 lets ONNX Runtime choose.

        Raises:
            ContractError: the file is missing, is no ONNX model, or does not carry a contract that fits it.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise ContractError(f"{path}: the model file cannot be read: {error.strerror}") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would take the cores that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ContractError(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self.sha256 = hashlib.sha256(model).hexdigest()
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ContractError(f"{path}: no {METADATA_KEY!r} in its metadata; export it with `unihead-export onnx`")
        self.contract = parse_contract(metadata[METADATA_KEY])
        found = tuple(output.name for output in self._session.get_outputs())
        if found != OUTPUT_NAMES:
            raise ContractError(f"{path}: outputs are {found}, the contract lists {OUTPUT_NAMES}; export it again")

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the arrays of `OUTPUT_NAMES` out, each with leading N."""
        return dict(zip(OUTPUT_NAMES, self._session.run(OUTPUT_NAMES, {INPUT_NAME: images}), strict=True))


class Engine:
    """A session and what it means.

    Attributes:
        contract: what the model file says about itself.
        sha256: of the model file; empty where there is none.
    """

    def __init__(self, session: Session, contract: ModelContract, sha256: str = "") -> None:
        self.contract = contract
        self.sha256 = sha256
        self._session = session

    def predict(self, images: Sequence[UInt8Array]) -> list[Prediction]:
        """Run one forward pass over N letterboxed pictures, each [S, S, 3] RGB uint8; one answer a picture."""
        outputs = self._session.run(np.stack(images))
        boxes, scores, labels, counts, masks, class_probs = (outputs[name] for name in OUTPUT_NAMES)
        return [
            Prediction(
                boxes=boxes[index, :count].astype(np.float32, copy=False),
                scores=scores[index, :count].astype(np.float32, copy=False),
                labels=labels[index, :count].astype(np.int64, copy=False),
                mask=masks[index].astype(np.uint8, copy=False),
                class_probs=class_probs[index].astype(np.float32, copy=False),
            )
            for index, count in enumerate(int(count) for count in counts)
        ]


def load_engine(path: Path, *, threads: int = 0) -> Engine:
    """Load a model file; raises and takes threads as `OnnxSession` does."""
    session = OnnxSession(path, threads=threads)
    return Engine(session, session.contract, session.sha256)
