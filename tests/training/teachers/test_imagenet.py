import pytest
import torch
from torchvision.models import MobileNet_V3_Small_Weights

from training.data.taxonomy import IMAGENETTE
from training.teachers.imagenet import IMAGENETTE_COLUMNS, keep_imagenette
from training.teachers.teacher import TeacherError


def test_the_columns_are_where_torchvision_names_the_ten_classes() -> None:
    names = MobileNet_V3_Small_Weights.IMAGENET1K_V1.meta["categories"]
    assert [names[column] for column in IMAGENETTE_COLUMNS] == list(IMAGENETTE.values())


def test_a_thousand_logits_become_ten_and_ten_stay() -> None:
    cut = keep_imagenette(torch.arange(2000.0).view(2, 1000))
    assert cut[1].tolist() == [1000 + column for column in IMAGENETTE_COLUMNS]
    assert keep_imagenette(cut) is cut


@pytest.mark.parametrize("shape", [(2, 999), (2, 10, 1), (10,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match="wanted logits of 10"):
        keep_imagenette(torch.zeros(shape))
