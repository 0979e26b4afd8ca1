"""A checkpoint into one ONNX file that knows what it is."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from export.graph import CANDIDATE_BOXES, CANDIDATE_LABELS, CANDIDATE_SCORES, append_detections, order_outputs
from export.layout import fold_input_scale, pool_by_means, pool_globally, upsample_by_factors
from service.engine.contract import INPUT_NAME, METADATA_KEY, ModelContract
from service.engine.engine import load_engine
from service.engine.golden import answer_golden
from training.checkpoint import Checkpoint
from training.inference import Predictor, make_contract, restore_model
from training.models.folding import fold_gates

_CANDIDATES = {"boxes": CANDIDATE_BOXES, "scores": CANDIDATE_SCORES, "labels": CANDIDATE_LABELS}


class ExportError(ValueError):
    """A checkpoint cannot be exported."""


def export_onnx(checkpoint: Checkpoint, out: Path, *, golden: Path) -> ModelContract:
    """Write the network of a finished run as one self-contained ONNX file, its contract in the metadata.

    Args:
        checkpoint: of a run whose stages are all done.
        out: the file to write; written to a temporary name and renamed.
        golden: folder of JPEG pictures whose answers become part of the contract.

    Returns:
        The contract as written.

    Raises:
        ExportError: the run is not finished.
    """
    config = checkpoint.parsed_config()
    if checkpoint.stage < config.num_stages:
        raise ExportError(
            f"the run has done {checkpoint.stage} of {config.num_stages} stages; "
            "finish it with `unihead-train run --resume`"
        )
    model = restore_model(checkpoint).eval()
    contract = make_contract(config, checkpoint.taxonomy, model.state_dict(), git_commit=checkpoint.git_commit)
    contract = dataclasses.replace(contract, metrics=_last_metrics(checkpoint))
    predictor = Predictor(pool_by_means(fold_gates(model)), config).eval()
    proto = trace(predictor, input_size=config.input_size)
    if "detect" in contract.tasks:
        # As many boxes as there can be: the contract says it.
        inference = config.inference.model_copy(update={"max_detections": contract.max_detections})
        append_detections(proto, inference, input_size=config.input_size)
    order_outputs(proto, tuple(contract.output_shapes))
    pool_globally(proto)
    upsample_by_factors(proto)
    fold_input_scale(proto)
    temporary = out.with_name(out.name + ".tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    _save(proto, contract, temporary)
    # The golden answers are those of the file itself, so it is written, asked, and written again with them.
    engine = load_engine(temporary)
    contract = dataclasses.replace(contract, golden=answer_golden(engine, golden))
    _save(proto, contract, temporary)
    temporary.replace(out)
    return contract


def trace(predictor: Predictor, *, input_size: int) -> onnx.ModelProto:
    """Trace the dense part with a batch of any size; outputs are those of `training.inference.DenseOutputs`."""
    images = torch.zeros(2, input_size, input_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch's exporter warns about its own deprecated calls.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            predictor,
            (images,),
            input_names=[INPUT_NAME],
            output_names=predictor.names_of_outputs(_CANDIDATES),
            dynamic_shapes={"images": {0: Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only without dynamo
    proto = program.model_proto
    for node in proto.graph.node:  # where each operator came from in Python: a third of the file
        del node.metadata_props[:]
        node.doc_string = ""
    return proto


def _last_metrics(checkpoint: Checkpoint) -> dict[str, float]:
    return {
        f"{task}/{name}": round(value, 6)
        for task, metrics in checkpoint.evaluations[-1]["metrics"].items()
        for name, value in metrics.items()
    }


def _save(proto: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    proto.producer_name = "unihead"
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
