"""A model repository for NVIDIA's Triton from an exported file: the same graph, its tensors, labels and warm-up.

Triton then answers with the network's own outputs: letterboxing before, and the way back to the original picture after,
are the client's. The layout is Triton's ("Model Repository", "Model Configuration"); none of it was run on Triton here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from service.engine.contract import ELEMENT_TYPES, INPUT_NAME, ModelContract
from service.engine.engine import load_engine

_VERSION = "1"
_LABELS = {"class_probs": "classes.txt"}
# Triton's words for the element types as ONNX Runtime has them.
_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{ name: "{input_name}" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {max_delay_us} }}
# The first pass of a model is slow; Triton is ready after this one.
model_warmup [
  {{
    name: "blank"
    batch_size: 1
    inputs {{
      key: "{input_name}"
      value {{ data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] zero_data: true }}
    }}
  }}
]
parameters {{ key: "unihead_version" value {{ string_value: "{version}" }} }}
"""


def write_repository(model: Path, out: Path, *, name: str, max_batch: int, max_delay_us: int) -> ModelContract:
    """Write `out`/`name`: config.pbtxt, labels, and the model as version 1.

    Args:
        model: a file of `unihead-export onnx`.
        out: the repository; made if there is none, other models in it stay.
        name: of the model in it.
        max_batch: pictures in one pass at most.
        max_delay_us: microseconds that a picture waits for others.

    Returns:
        The file's contract.

    Raises:
        ContractError: the file cannot be used.
        OSError: a file cannot be written.
    """
    contract = load_engine(model, threads=1).contract
    folder = out / name
    (folder / _VERSION).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, folder / _VERSION / "model.onnx")
    if "classify" in contract.tasks:
        names = "\n".join(contract.classification_classes)
        (folder / _LABELS["class_probs"]).write_text(f"{names}\n", encoding="utf-8")
    config = make_config(contract, name=name, max_batch=max_batch, max_delay_us=max_delay_us)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return contract


def make_config(contract: ModelContract, *, name: str, max_batch: int, max_delay_us: int) -> str:
    """Write a model configuration in protobuf's text format."""
    return _CONFIG.format(
        name=name,
        max_batch=max_batch,
        input_name=INPUT_NAME,
        size=contract.input_size,
        outputs=",\n".join(_output(key, dims) for key, dims in contract.output_shapes.items()),
        max_delay_us=max_delay_us,
        version=contract.version,
    )


def _output(name: str, dims: Sequence[int]) -> str:
    # A tensor of one number a picture: Triton wants a dimension, which the graph does not have.
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    labels = f' label_filename: "{_LABELS[name]}"' if name in _LABELS else ""
    return f'  {{ name: "{name}" data_type: {_TYPES[ELEMENT_TYPES[name]]} {shape}{labels} }}'
