from pathlib import Path

import pytest
from torchvision.models import MobileNet_V3_Small_Weights
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

from training.data.taxonomy import COCO, IMAGENETTE, MINI, VOC, Taxonomy, TaxonomyError, require_same_classes


def test_coco_names_are_the_official_ones_in_their_order() -> None:
    names = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [name for name in names if name not in {"__background__", "N/A"}] == list(COCO)


def test_voc_names_are_the_official_ones_in_their_order() -> None:
    names = LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert names == ["__background__", *VOC[1:]]
    assert VOC[0] == "background"


def test_every_voc_class_has_one_of_coco() -> None:
    names = dict(zip(VOC, MINI.segmentation_as_detection(), strict=True))
    assert names.pop("background") is None
    found = {name: COCO[label] for name, label in names.items() if label is not None}
    renamed = {name: other for name, other in found.items() if name != other}
    assert renamed == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert len(set(found.values())) == 20


def test_imagenette_names_stand_in_the_order_of_imagenet() -> None:
    # ImageNet numbers its classes by wnid, so the order of the English names must be ImageNet's too.
    imagenet = [name.lower() for name in MobileNet_V3_Small_Weights.IMAGENET1K_V1.meta["categories"]]
    aliases = {"chain saw": "chainsaw"}
    names = [name.lower() for name in IMAGENETTE.values()]
    numbers = [imagenet.index(name if name in imagenet else aliases[name]) for name in names]
    assert numbers == sorted(numbers) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert list(IMAGENETTE) == sorted(IMAGENETTE)


@pytest.mark.parametrize("split", ["train", "val"])
def test_imagenette_wnids_are_those_of_the_real_data(mini_sets_root: Path, split: str) -> None:
    assert {path.name for path in (mini_sets_root / "imagenette_160" / split).iterdir()} == set(IMAGENETTE)
