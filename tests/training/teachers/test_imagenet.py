import pytest
import torch
from torchvision.models import get_model_weights, list_models

from training.data.taxonomy import IMAGENETTE, MINI, Taxonomy
from training.teachers.imagenet import IMAGENET_CLASSES, find_columns, keep_classes
from training.teachers.teacher import TeacherError

IMAGENETTE_COLUMNS = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_the_columns_are_where_torchvision_names_the_ten_classes() -> None:
    assert [IMAGENET_CLASSES[column] for column in IMAGENETTE_COLUMNS] == list(IMAGENETTE.values())
    assert find_columns(MINI) == IMAGENETTE_COLUMNS


def test_the_order_of_the_data_decides_that_of_the_columns() -> None:
    assert find_columns(Taxonomy(classification=("Church", "golf_ball", "tench"))) == [497, 574, 0]


def test_a_class_that_imagenet_does_not_know_is_named() -> None:
    with pytest.raises(TeacherError, match="of 1000 classes none is 'crack'"):
        find_columns(Taxonomy(classification=("tench", "crack")))


def test_all_weights_of_torchvision_list_the_same_classes() -> None:
    for name in ("resnet50", "mobilenet_v3_large", "efficientnet_b0"):
        assert name in list_models()
        assert tuple(get_model_weights(name).DEFAULT.meta["categories"]) == IMAGENET_CLASSES


def test_a_thousand_logits_become_ten_and_ten_stay() -> None:
    cut = keep_classes(torch.arange(2000.0).view(2, 1000), MINI)
    assert cut[1].tolist() == [1000 + column for column in IMAGENETTE_COLUMNS]
    assert keep_classes(cut, MINI) is cut


@pytest.mark.parametrize("shape", [(2, 999), (2, 10, 1), (10,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match="wanted logits of 10"):
        keep_classes(torch.zeros(shape), MINI)
