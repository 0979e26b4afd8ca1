import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import MobileNet_V3_Small_Weights
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

from training.config import Task
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


OWN = Taxonomy(("background", "crack", "rust"), ("crack", "rust spot"), ("good", "bad"), (("crack", "crack"),))


def test_a_taxonomy_says_which_tasks_there_are_and_how_many_classes_they_have() -> None:
    assert MINI.tasks == tuple(Task)
    boxes = OWN.keep({Task.DETECTION})
    assert boxes == Taxonomy(detection=("crack", "rust spot"))
    assert boxes.tasks == (Task.DETECTION,)
    assert boxes.num_classes == {Task.DETECTION: 2}
    assert list(OWN.num_classes) == list(Task)
    assert OWN.keep({Task.SEGMENTATION, Task.DETECTION}).same == OWN.same
    assert OWN.segmentation_as_detection() == (None, 0, None)


@pytest.mark.parametrize("taxonomy", [MINI, OWN, OWN.keep({Task.CLASSIFICATION}), Taxonomy()])
def test_a_taxonomy_comes_back_from_json(taxonomy: Taxonomy) -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy


@pytest.mark.parametrize("values", [{}, {"segmentation": 3}, {**OWN.to_dict(), "same": [["crack"]]}])
def test_values_that_are_no_taxonomy_are_told(values: dict[str, Any]) -> None:
    with pytest.raises(TaxonomyError, match="cannot be read"):
        Taxonomy.from_dict(values)


def test_a_name_stands_for_one_class() -> None:
    with pytest.raises(TaxonomyError, match="detection: two classes are called 'crack'"):
        Taxonomy(detection=("crack", "rust", "crack"))


@pytest.mark.parametrize("pair", [("rust", "dent"), ("dent", "crack")])
def test_only_classes_can_be_the_same_thing(pair: tuple[str, str]) -> None:
    with pytest.raises(TaxonomyError, match="one of them is no class there"):
        replace(OWN, same=(pair,))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        (
            {"segmentation": ("background", "rust", "crack")},
            "segmentation: class 1 is 'crack' in the checkpoint, 'rust' in the data (2 differ)",
        ),
        (
            {"detection": ("crack", "dent")},
            "detection: class 1 is 'rust spot' in the checkpoint, 'dent' in the data",
        ),
        ({"classification": ("good", "bad", "unsure")}, "classification: only the data has 'unsure'"),
        ({"classification": ()}, "classification: the checkpoint has 2 classes, the data none"),
        ({"same": ()}, "'crack' of segmentation is 'crack' of detection in the checkpoint, not in the data"),
        (
            {"same": (("crack", "crack"), ("rust", "rust spot"))},
            "'rust' of segmentation is 'rust spot' of detection in the data, not in the checkpoint",
        ),
    ],
)
def test_a_difference_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert OWN.describe_difference(replace(OWN, **changes)) == sentence


def test_what_has_other_classes_is_refused_with_what_to_do() -> None:
    other = replace(OWN, detection=("rust spot", "crack"))
    require_same_classes(OWN, other, {Task.SEGMENTATION}, owner="the run", mine="it", advice="")
    with pytest.raises(
        TaxonomyError, match=r"the run was made with other classes.*class 0 is 'crack' in it.*; look again"
    ):
        require_same_classes(OWN, other, {Task.DETECTION}, owner="the run", mine="it", advice="look again")
    apart = replace(OWN, same=())
    require_same_classes(OWN, apart, set(Task), owner="the run", mine="it", advice="")
    with pytest.raises(TaxonomyError, match="'crack' of segmentation is 'crack' of detection in it"):
        require_same_classes(OWN, apart, set(Task), owner="the run", mine="it", advice="", pairs=True)


def test_classes_are_found_by_name_among_those_of_somebody_else() -> None:
    assert OWN.match(Task.CLASSIFICATION, ["Bad", "unsure", "GOOD"]) == (2, 0)
    # Masks of COCO's classes: VOC's aeroplane is the airplane there.
    assert MINI.keep({Task.SEGMENTATION, Task.DETECTION}).match(Task.SEGMENTATION, ["background", *COCO])[:2] == (0, 5)
    with pytest.raises(TaxonomyError, match="of 2 classes none is 'good'"):
        OWN.match(Task.CLASSIFICATION, ["bad", "worse"])
    with pytest.raises(TaxonomyError, match="more than one is 'good'"):
        OWN.match(Task.CLASSIFICATION, ["bad", "good", "Good"])
