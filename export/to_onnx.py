"""A checkpoint into one ONNX file that knows what it is."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from pydantic import ValidationError
from torch.export import Dim

from export.graph import CANDIDATE_BOXES, CANDIDATE_LABELS, CANDIDATE_SCORES, append_detections, order_outputs
from export.layout import fold_input_scale, pool_by_means, pool_globally, upsample_by_factors
from service.engine.contract import INPUT_NAME, METADATA_KEY, ModelContract
from service.engine.engine import load_engine
from service.engine.golden import add_golden
from training.checkpoint import Checkpoint
from training.config import Config, Task, describe_faults
from training.inference import Predictor, make_contract, restore_model
from training.models.folding import fold_gates

# What `export.calibrate` finds: scores that mean the chance of being right.
CALIBRATION = ("score_scale", "score_bias", "class_temperature")
_CANDIDATES = {"boxes": CANDIDATE_BOXES, "scores": CANDIDATE_SCORES, "labels": CANDIDATE_LABELS}


class ExportError(ValueError):
    """A checkpoint cannot be exported."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a file does otherwise than the run that it comes from; None: as the run.

    Attributes:
        input_size: side of the square input; in pixels.
        iou_threshold: of two boxes of one class that overlap more, the graph keeps the better one.
        max_detections: boxes in an answer at most.
        score_floor: boxes that the network scores less, uncalibrated, never leave the graph.
        score_threshold: of answers to requests that name none.
        score_scale: times the logit of a box's score.
        score_bias: added to that.
        class_temperature: divides the logits of the classes.
    """

    input_size: int | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    score_floor: float | None = None
    score_threshold: float | None = None
    score_scale: float | None = None
    score_bias: float | None = None
    class_temperature: float | None = None

    @classmethod
    def of_contract(cls, contract: ModelContract) -> Overrides:
        """What a file says of itself."""
        return cls(**{field.name: getattr(contract, field.name) for field in dataclasses.fields(cls)})

    def apply(self, config: Config) -> Config:
        """The config of a run that would have had these values.

        Raises:
            ExportError: one is out of its range.
        """
        wanted = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        whole = {name: wanted.pop(name) for name in ("input_size",) if name in wanted}
        inference = config.inference.model_dump() | wanted
        try:
            return Config.model_validate(config.model_dump() | whole | {"inference": inference})
        except ValidationError as error:
            raise ExportError(f"a file cannot be made so: {describe_faults(error)}") from error

    def describe(self, config: Config) -> str:
        """What is other than in the run, as the end of a version: "-input416-calibrated"; empty if nothing is."""
        inference = config.inference
        pairs = (
            ("input", self.input_size, config.input_size),
            ("iou", self.iou_threshold, inference.iou_threshold),
            ("max", self.max_detections, inference.max_detections),
            ("floor", self.score_floor, inference.score_floor),
            ("threshold", self.score_threshold, inference.score_threshold),
        )
        words = [f"-{word}{value}" for word, value, was in pairs if value not in (None, was)]
        calibrated = any(getattr(self, name) not in (None, getattr(inference, name)) for name in CALIBRATION)
        return "".join([*words, "-calibrated"] if calibrated else words)


UNCHANGED = Overrides()


def export_onnx(checkpoint: Checkpoint, out: Path, *, golden: Path, overrides: Overrides = UNCHANGED) -> ModelContract:
    """Write the network of a finished run as one self-contained ONNX file, its contract in the metadata.

    Args:
        checkpoint: of a run whose stages are all done.
        out: the file to write; written to a temporary name and renamed.
        golden: folder of JPEG pictures whose answers become part of the contract.
        overrides: what the file is to do otherwise than the run; its contract and version say so.

    Returns:
        The contract as written.

    Raises:
        ExportError: the run is not finished, or an override is out of its range: more boxes than there can be, too.
    """
    trained = checkpoint.parsed_config()
    config = overrides.apply(trained)
    if checkpoint.stage < config.num_stages:
        raise ExportError(
            f"the run has done {checkpoint.stage} of {config.num_stages} stages; "
            "finish it with `unihead-train run --resume`, or begin the next with `--init-from` and `--stage`"
        )
    model = restore_model(checkpoint).eval()
    contract = make_contract(config, checkpoint.taxonomy, model.state_dict(), git_commit=checkpoint.git_commit)
    contract = dataclasses.replace(
        contract,
        version=contract.version + overrides.describe(trained),
        metrics=_last_metrics(checkpoint, trained, config),
    )
    if overrides.max_detections and contract.max_detections < overrides.max_detections:
        raise ExportError(
            f"{contract.max_detections} candidates cannot fill max_detections {overrides.max_detections}; lower it"
        )
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
    contract = add_golden(contract, engine, golden)
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


def _last_metrics(checkpoint: Checkpoint, trained: Config, exported: Config) -> dict[str, float]:
    """What the run measured, less what this file would measure otherwise."""
    if exported.input_size != trained.input_size:
        return {}
    # A threshold is the service's, and calibration leaves boxes and classes in their order.
    kept = exported.inference.model_dump(include={"score_threshold", *CALIBRATION})
    same = trained.inference.model_copy(update=kept) == exported.inference
    changed = () if same else (Task.DETECTION,)
    return {
        f"{task}/{name}": round(value, 6)
        for task, metrics in checkpoint.evaluations[-1]["metrics"].items()
        for name, value in metrics.items()
        if task not in changed
    }


def _save(proto: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    proto.producer_name = "unihead"
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
