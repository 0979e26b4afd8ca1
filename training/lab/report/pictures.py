"""The worst and best pictures of a task: what is true beside what the network said."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from service.pictures.imaging import UInt8Array, fit
from training.config import Task
from training.data.datasets import (
    ClassificationSample,
    DataError,
    DetectionSample,
    SegmentationSample,
    load_image,
    read_mask,
)
from training.data.doctor.findings import PictureBox
from training.data.doctor.html.drawing import colour_key, draw_boxes, encode_data_uri, make_colours, shrink, tint
from training.data.feed.dataset import Sample
from training.data.taxonomy import VOID
from training.lab.report.html import figure
from training.metrics.details import PictureAnswer, decode_mask

PICTURES_EACH = 4  # worst, and best
FRAME_PX = (420, 320)
_TOP_CLASSES = 3
_SCORES = {
    Task.SEGMENTATION: "mean IoU",
    Task.DETECTION: "share of the objects found",
    Task.CLASSIFICATION: "probability of the true class",
}


def choose_pictures(answers: Sequence[PictureAnswer]) -> tuple[list[PictureAnswer], list[PictureAnswer]]:
    """The worst pictures, the worst first, and the best, the best first; none is in both.

    Of equally good ones those with more boxes come first, then the name decides. Pictures without a score, which have
    nothing to find, are left out.
    """
    scored = [(one.score, one) for one in answers if one.score is not None]
    count = max(1, min(PICTURES_EACH, len(scored) // 2))
    worst_first = sorted(scored, key=lambda entry: (entry[0], -len(entry[1].boxes), entry[1].picture))
    best_first = sorted(worst_first[count:], key=lambda entry: (-entry[0], -len(entry[1].boxes), entry[1].picture))
    return [one for _, one in worst_first[:count]], [one for _, one in best_first[:count]]


def picture_sheets(
    task: Task, names: Sequence[str], answers: Sequence[PictureAnswer], samples: Sequence[Sample], *, input_size: int
) -> str:
    """Draw the worst and the best pictures of a task, as markup.

    Args:
        task: of the answers.
        names: of its classes.
        answers: of all pictures that were measured on.
        samples: what the data has in their place.
        input_size: side of the network's square; in pixels.

    Raises:
        DataError: a picture is not there, or cannot be read.
    """
    by_name = {sample.image.name: sample for sample in samples}
    sheets, layout = [], "fours" if task is Task.CLASSIFICATION else "pairs"
    for title, chosen in zip(("Worst pictures", "Best pictures"), choose_pictures(answers), strict=True):
        missing = [one.picture for one in chosen if one.picture not in by_name]
        if missing:
            raise DataError(f"the data has no validation picture {missing[0]}; give that which the run was measured on")
        entries = "".join(_entry(task, names, one, by_name[one.picture], input_size) for one in chosen)
        if entries:
            sheets.append(
                figure(f"{title}, by {_SCORES[task]}", f'<ul class="sheet {layout}">{entries}</ul>', wide=True)
            )
    return "".join(sheets)


def _entry(task: Task, names: Sequence[str], answer: PictureAnswer, sample: Sample, input_size: int) -> str:
    image = load_image(sample.image)
    if isinstance(sample, SegmentationSample):
        panels, words = _mask_panels(image, names, sample, answer, input_size)
    elif isinstance(sample, DetectionSample):
        panels, words = _box_panels(image, names, sample, answer)
    else:
        panels, words = {"": shrink(image, FRAME_PX)}, _class_words(names, sample, answer)
    frames = "".join(
        f'<div><div class="frame"><img alt="{escape(f"{answer.picture} {name}".strip(), quote=True)}" loading="lazy" '
        f'src="{encode_data_uri(pixels)}"></div>{f"<span class=soft>{name}</span>" if name else ""}</div>'
        for name, pixels in panels.items()
    )
    score = f"{answer.score:.3f}" if answer.score is not None else ""
    return (
        f'<li><figure><div class="panels">{frames}</div><figcaption><span class="where">{escape(answer.picture)}</span>'
        f'<span class="score" title="{_SCORES[task]}">{score}</span>{words}</figcaption></figure></li>\n'
    )


def _mask_panels(
    image: UInt8Array, names: Sequence[str], sample: SegmentationSample, answer: PictureAnswer, input_size: int
) -> tuple[dict[str, UInt8Array], str]:
    height, width = image.shape[:2]
    cells = decode_mask(answer)
    truth = read_mask(sample.mask, len(names))
    predicted = fit(width, height, input_size).mask_to_original(cells, input_size // len(cells))
    small, colours = shrink(image, FRAME_PX), make_colours(names)
    panels = {"truth": tint(small, truth, names, colours), "prediction": tint(small, predicted, names, colours)}
    shown = [value for value in np.union1d(truth, predicted).tolist() if value not in {0, VOID}]
    chips = "".join(f"<li>{colour_key(colours[names[value]])}{escape(names[value])}</li>" for value in shown)
    return panels, f'<ul class="chips">{chips}</ul>'


def _box_panels(
    image: UInt8Array, names: Sequence[str], sample: DetectionSample, answer: PictureAnswer
) -> tuple[dict[str, UInt8Array], str]:
    colours = make_colours(names)
    small = shrink(image, FRAME_PX)
    true: list[PictureBox] = [
        (names[label], tuple(box), is_crowd)
        for boxes, labels, is_crowd in (
            (sample.boxes, sample.labels, False),
            (sample.crowd_boxes, sample.crowd_labels, True),
        )
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
    ]
    # A box's text is its name; with the score in it the colour has to be known by that too.
    texts = [f"{names[label]} {score:.2f}" for label, score, *_ in answer.boxes]
    tones = {text: colours[names[label]] for text, (label, *_) in zip(texts, answer.boxes, strict=True)}
    found = [(text, (x1, y1, x2, y2), False) for text, (_, _, x1, y1, x2, y2) in zip(texts, answer.boxes, strict=True)]
    panels = {"truth": draw_boxes(small, true, colours, image), "prediction": draw_boxes(small, found, tones, image)}
    objects = len(sample.boxes)
    return panels, f'<ul class="chips"><li>{objects} object{"" if objects == 1 else "s"}</li></ul>'


def _class_words(names: Sequence[str], sample: ClassificationSample, answer: PictureAnswer) -> str:
    best = sorted(range(len(names)), key=lambda label: (-answer.class_probs[label], label))[:_TOP_CLASSES]
    shown = [*best, *([] if sample.label in best else [sample.label])]
    rows = "".join(
        f'<tr><th scope="row">{escape(names[label])}{" (true)" if label == sample.label else ""}</th>'
        f'<td><span class="bar {"s0" if label == sample.label else "s3"}" '
        f'style="width:{100 * answer.class_probs[label]:.1f}%"></span></td>'
        f'<td class="number">{answer.class_probs[label]:.2f}</td></tr>'
        for label in shown
    )
    return f'<table class="classes">{rows}</table>'
