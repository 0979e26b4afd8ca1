"""The official class names of the three tasks, in their official order: the position is the label."""

from __future__ import annotations

from typing import Final

from training.options.base import Task

# Value of a VOC mask where the annotators drew no line: borders and objects too hard to tell.
VOID: Final = 255

# VOC 2012 development kit, section 3 (VOCinit.m); 0 is background, as in the palette masks.
VOC_CLASSES: Final = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# COCO 2017, `categories` of instances_val2017.json; ids 1..90 have gaps there, so the order counts and the id does not.
# fmt: off
COCO_CLASSES: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on

_OTHER_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
# COCO's class of each VOC class, by position; background is none.
VOC_AS_COCO: Final = (None, *(COCO_CLASSES.index(_OTHER_NAMES.get(name, name)) for name in VOC_CLASSES[1:]))

# Imagenette v2 (github.com/fastai/imagenette): WordNet id -> English, in the order of the ids.
IMAGENETTE_CLASSES: Final = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

CLASSES: Final[dict[Task, tuple[str, ...]]] = {
    Task.SEGMENTATION: VOC_CLASSES,
    Task.DETECTION: COCO_CLASSES,
    Task.CLASSIFICATION: tuple(IMAGENETTE_CLASSES.values()),
}
NUM_CLASSES: Final = {task: len(names) for task, names in CLASSES.items()}
