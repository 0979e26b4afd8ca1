from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from service.pictures.imaging import letterbox
from tests.training.commands.invoking import assert_one_sentence, invoke
from tests.training.fakes import SIZE, make_config, make_model
from training.checkpoint import Checkpoint, save_checkpoint
from training.commands.sweep import sweep_nms
from training.config import Config
from training.data.datasets import DataSets, DetectionSample, load_image
from training.data.taxonomy import COCO, MINI
from training.inference import DenseOutputs

CPU = torch.device("cpu")


class Shifted(nn.Module):
    """Finds every object, and again, a little less surely, some pixels to its right; looks it up by the square."""

    def __init__(self, samples: tuple[DetectionSample, ...]) -> None:
        super().__init__()
        self.answers: dict[bytes, tuple[Tensor, Tensor, Tensor]] = {}
        for sample in samples:
            square, place = letterbox(load_image(sample.image), SIZE, (124, 116, 104))
            boxes = torch.from_numpy(sample.boxes) * (place.resized_width / place.width)
            shifted = boxes + 0.2 * (boxes[:, 2:3] - boxes[:, :1]) * torch.tensor([1, 0, 1, 0])
            labels = torch.from_numpy(sample.labels).repeat(2)
            scores = torch.cat([torch.full((len(boxes),), score) for score in (0.9, 0.6)])
            self.answers[square.tobytes()] = torch.cat([boxes, shifted]), scores, labels
        self.passes = 0

    def forward(self, images: Tensor) -> DenseOutputs:
        self.passes += 1
        boxes, scores, labels = self.answers[images.numpy().tobytes()]
        return DenseOutputs(boxes[None], scores[None], labels[None])


@pytest.fixture
def config() -> Config:
    return make_config()


@pytest.fixture
def samples(sets: DataSets) -> tuple[DetectionSample, ...]:
    assert sets.detection is not None
    return sets.detection.val


def test_a_threshold_that_lets_the_second_box_stay_shows_duplicates(
    samples: tuple[DetectionSample, ...], config: Config
) -> None:
    network = Shifted(samples)
    # The two boxes of an object overlap by (1 - 0.2) / (1 + 0.2) = 0.67.
    (low, kept_out, tidy), (high, _, doubled) = sweep_nms(network, config, len(COCO), samples, (0.5, 0.7), CPU)
    assert (low, high) == (0.5, 0.7)
    assert network.passes == len(samples)  # one each, for both
    objects = sum(len(sample.boxes) for sample in samples)
    assert kept_out.map_50 == pytest.approx(1)
    assert (tidy.precision, tidy.recall, tidy.duplicates_per_picture) == (1, 1, 0)
    # The best F1 leaves the second boxes out, at a score above theirs: nothing is doubled there.
    assert doubled.score_threshold > 0.6
    assert (doubled.precision, doubled.recall) == (1, 1)
    assert tidy.boxes_per_picture == objects / len(samples)


@pytest.fixture
def checkpoint(tmp_path: Path, config: Config) -> Path:
    found = Checkpoint(config.model_dump(mode="json"), "unknown", make_model().state_dict(), stage=3, taxonomy=MINI)
    save_checkpoint(found, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def test_the_command_prints_a_line_a_threshold(
    monkeypatch: pytest.MonkeyPatch, samples: tuple[DetectionSample, ...], tiny_sets: Path, checkpoint: Path
) -> None:
    monkeypatch.setattr("training.commands.sweep.Predictor", lambda *_: Shifted(samples))
    words = ("sweep", "--data", tiny_sets, "--checkpoint", checkpoint, "--device", "cpu")
    result = invoke(*words, "--split", "val", "--iou-threshold", "0.5", "--iou-threshold", "0.7")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert [row[:3] for row in rows] == [["0.5", "1.0000", "1.0000"], ["0.7", "1.0000", "1.0000"]]
    assert_one_sentence(invoke(*words), "the data has no choose")


def test_what_has_not_learned_boxes_is_refused(tmp_path: Path, config: Config, tiny_sets: Path) -> None:
    young = Checkpoint(config.model_dump(mode="json"), "unknown", make_model().state_dict(), stage=1, taxonomy=MINI)
    save_checkpoint(young, tmp_path / "checkpoint.pt")
    result = invoke("sweep", "--data", tiny_sets, "--checkpoint", tmp_path / "checkpoint.pt", "--device", "cpu")
    assert_one_sentence(result, "has not learned detection")
