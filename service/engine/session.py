"""The seam to ONNX Runtime: one model file, read, checked against its own contract, and run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.contract import ELEMENT_TYPES, INPUT_NAME, METADATA_KEY, parse_contract
from service.errors import ContractError
from service.files import open_regular
from service.pictures.imaging import UInt8Array

CPU: Final = ("CPUExecutionProvider",)
_FATAL = 4
# A tensor that lies elsewhere is looked for in a folder that cannot be one, not in the working folder; and bytes are
# what `onnx_file` has read, not ONNX Runtime's other format, which it would recognise by four letters among them.
_ONLY_THESE_BYTES: Final = {
    "session.model_external_initializers_file_folder_path": "/dev/null",
    "session.load_model_format": "ONNX",
}
_MAX_MODEL_BYTES = 2**31 - 1  # of a protocol buffer


class Session(Protocol):
    """The seam to the runtime: everything behind it can be replaced by a ten-line fake."""

    def run(self, images: UInt8Array) -> Mapping[str, NDArray[np.generic]]:
        """[N, S, S, 3] RGB uint8 in, the outputs of the contract's tasks out by name, each with leading N."""
        ...


class OnnxSession:
    """One ONNX file in ONNX Runtime; safe to call from several threads."""

    def __init__(self, model: bytes, *, threads: int = 0, providers: Sequence[str] = CPU, name: str = "model") -> None:
        """Load a model.

        Args:
            model: the bytes of an ONNX file; nothing outside them is read.
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
        for entry in _ONLY_THESE_BYTES.items():
            options.add_session_config_entry(*entry)
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
        self._outputs = tuple(self.contract.output_shapes)
        if found != self._outputs:
            raise ContractError(f"{name}: outputs are {found}, the contract lists {self._outputs}; export it again")
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
        """[N, S, S, 3] RGB uint8 in, the outputs of the contract's tasks out by name, each with leading N."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {INPUT_NAME: images}), strict=True))


def read_model(path: Path) -> bytes:
    """Read a model file.

    Raises:
        ContractError: it cannot be read.
    """
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 - of a descriptor
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= _MAX_MODEL_BYTES:
                raise ContractError(f"{path}: the model file has {size} bytes, which is no size of an ONNX model")
            return file.read(size)
    except OSError as error:
        raise ContractError(f"{path}: the model file cannot be read: {error.strerror}") from error
