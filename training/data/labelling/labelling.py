"""A folder of pictures labelled: teachers opened, asked, weighed against each other, and written as a source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from service.pictures.imaging import UInt8Array
from training.data.labelling.answers import BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.asking import Asked, ask, find_pictures
from training.data.labelling.faults import LabellingError
from training.data.labelling.fusion import Witness
from training.data.labelling.image_labels import ImageLabels, find_known, find_strangers, load_image_labels
from training.data.labelling.journal import Journal
from training.data.labelling.network import Network
from training.data.labelling.rules import Rules, judge_boxes, judge_classes, judge_masks
from training.data.labelling.writing import ANSWERS, BoxRow, Writer, check_out
from training.options.base import Task

AnswerT = TypeVar("AnswerT", BoxAnswer, MaskAnswer, ClassAnswer)


@dataclass(frozen=True, slots=True)
class Teacher:
    """One teacher at work.

    Attributes:
        network: answers.
        journal: keeps what it said.
        weight: among the others, > 0.
    """

    network: Network
    journal: Journal
    weight: float

    def read(self, picture: str, kind: type[AnswerT]) -> AnswerT:
        """What it said about a picture."""
        answer = self.journal.read(picture)
        if not isinstance(answer, kind):
            raise TypeError(f"{self.network.path} answered with {type(answer).__name__}")
        return answer


@dataclass(frozen=True, slots=True)
class Labelled:
    """What came of a folder.

    Attributes:
        lines: about each task, for people.
        refused: why a picture was left out, by its path.
        notes: what is odd, and may be meant.
    """

    lines: Sequence[str]
    refused: Mapping[str, str]
    notes: Sequence[str]


def label(
    pictures: Path,
    out: Path,
    teachers: Sequence[tuple[Path, float]],
    rules: Rules,
    *,
    image_labels: Path | None,
    jobs: int,
    progress: Callable[[int, int], None],
) -> Labelled:
    """Label a folder of pictures.

    Args:
        pictures: folder, looked into at any depth.
        out: new, or of an earlier run, whose answers are taken where teacher and picture are the same.
        teachers: path and weight of each.
        rules: which answers become labels.
        image_labels: what is known about whole pictures.
        jobs: pictures at once; the labels do not depend on it.
        progress: is told how many of how many pictures are done.

    Raises:
        LabellingError: a teacher cannot be used, there is no picture, or `out` is something else.
        OSError: a file cannot be read or written.
    """
    check_out(out, pictures)
    names = find_pictures(pictures)
    known = load_image_labels(image_labels) if image_labels is not None else {}
    networks = [Network(path) for path, _ in teachers]
    common = {task: _join_names(task, networks) for task in Task if any(_is_of(task, each) for each in networks)}
    if Task.SEGMENTATION in common:
        _require_stems(pictures, names)
    journals = [Journal(out / ANSWERS, network) for network in networks]
    if len({journal.folder for journal in journals}) < len(journals):
        raise LabellingError("the same teacher is given twice; give it once, with a larger weight")
    with ExitStack() as stack:
        for journal in journals:
            stack.enter_context(journal)
        asked = ask(pictures, names, list(zip(networks, journals, strict=True)), jobs=jobs, progress=progress)
        if not asked.sizes:
            reason = next(iter(asked.refused.items()))
            raise LabellingError(f"{pictures}: none of its {len(names)} pictures can be read, as {': '.join(reason)}")
        weighed = [
            Teacher(network, journal, weight)
            for network, journal, (_, weight) in zip(networks, journals, teachers, strict=True)
        ]
        writer = Writer(out, pictures)
        judging = _Judging(asked, known, rules, weighed, common)
        lines = [judging.write(task, writer) for task in common]
        record = {
            "teachers": [
                {
                    "file": each.network.path.name,
                    "sha256": each.network.sha256,
                    "weight": each.weight,
                    "description": each.network.description.model_dump(mode="json", exclude_none=True),
                }
                for each in weighed
            ],
            "rules": rules.model_dump(mode="json"),
            "image_labels": image_labels is not None,
            "pictures": len(asked.sizes),
            "left_out": asked.refused,
        }
        writer.finish(record)
    every = {name for each in common.values() for name in each}
    return Labelled(lines, asked.refused, _find_notes(known, every, names))


@dataclass(frozen=True, slots=True)
class _Judging:
    """Everything that decides about the labels of a picture."""

    asked: Asked
    known: Mapping[str, ImageLabels]
    rules: Rules
    teachers: Sequence[Teacher]
    names: Mapping[Task, Sequence[str]]

    def write(self, task: Task, writer: Writer) -> str:
        """Write the labels of one task; gives a line about them."""
        teachers = [each for each in self.teachers if _is_of(task, each.network)]
        names, count = self.names[task], len(self.asked.sizes)
        if task is Task.DETECTION:
            found = writer.write_boxes(self._boxes(teachers, names), names, self.rules)
            return f"detection: {count} pictures with {found} boxes of score {self.rules.score_floor:g} and more"
        if task is Task.SEGMENTATION:
            writer.write_masks(self._masks(teachers, names), names)
            return f"segmentation: {count} pictures with a mask each"
        sure = writer.write_classes(self._classes(teachers, names), names)
        return f"classification: {sure} of {count} pictures with a class"

    def _boxes(self, teachers: Sequence[Teacher], names: Sequence[str]) -> Iterator[BoxRow]:
        for picture, size in self.asked.sizes.items():
            witnesses = []
            for each in teachers:
                answer = each.read(picture, BoxAnswer)
                labels = _positions(each.network, names)[answer.labels]
                knows = [name in each.network.names for name in names]
                witnesses.append(Witness(BoxAnswer(answer.boxes, answer.scores, labels), each.weight, knows))
            boxes, given = judge_boxes(witnesses, find_known(self._labels_of(picture), names), self.rules)
            yield BoxRow(picture, size, boxes, given)

    def _masks(self, teachers: Sequence[Teacher], names: Sequence[str]) -> Iterator[tuple[str, UInt8Array]]:
        for picture in self.asked.sizes:
            answers = []
            for each in teachers:
                answer = each.read(picture, MaskAnswer)
                values = np.concatenate([[0], 1 + _positions(each.network, names)]).astype(np.uint8)
                answers.append((MaskAnswer(values[answer.ids], answer.probs), each.weight))
            known = find_known(self._labels_of(picture), names)
            yield picture, judge_masks(answers, len(names), known, self.rules)

    def _classes(
        self, teachers: Sequence[Teacher], names: Sequence[str]
    ) -> Iterator[tuple[str, int | None, Sequence[float]]]:
        for picture in self.asked.sizes:
            answers = []
            for each in teachers:
                probs = np.zeros(len(names), dtype=np.float32)
                probs[_positions(each.network, names)] = each.read(picture, ClassAnswer).probs
                answers.append((ClassAnswer(probs), each.weight))
            chosen, means = judge_classes(answers, find_known(self._labels_of(picture), names), self.rules)
            yield picture, chosen, means.tolist()

    def _labels_of(self, picture: str) -> ImageLabels:
        return self.known.get(picture, ImageLabels())


def _is_of(task: Task, network: Network) -> bool:
    return network.description.task is task


def _join_names(task: Task, networks: Sequence[Network]) -> tuple[str, ...]:
    """The names of all teachers of a task, in the order of the first.

    Raises:
        LabellingError: teachers of masks or of whole pictures know different classes, or one has a name that is no
            folder's.
    """
    chosen = [network for network in networks if _is_of(task, network)]
    names = tuple(dict.fromkeys(name for network in chosen for name in network.names))
    if task is Task.DETECTION:
        return names
    for network in chosen:
        if lacking := [name for name in names if name not in network.names]:
            raise LabellingError(
                f"{network.path}: does not know {lacking[0]!r}, which another teacher of {task} does; wanted the same "
                "classes, by [classes] aliases where only the names differ"
            )
    unfit = [name for name in names if "/" in name or name.startswith(".")]
    if unfit and task is Task.CLASSIFICATION:
        raise LabellingError(f"{chosen[0].path}: no folder can be called {unfit[0]!r}; give it another name in aliases")
    return names


def _positions(network: Network, names: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    place = {name: position for position, name in enumerate(names)}
    return np.array([place[name] for name in network.names], dtype=np.int64)


def _find_notes(known: Mapping[str, ImageLabels], classes: Collection[str], pictures: Sequence[str]) -> list[str]:
    """What the image labels name and nobody else does: often a word that is misspelt."""
    strange = find_strangers(known, classes)
    absent = sorted(known.keys() - set(pictures))
    return [
        f"the image labels name {len(odd)} {what} that {where}, such as {odd[0]!r}"
        for odd, what, where in ((strange, "classes", "no teacher knows"), (absent, "pictures", "are not there"))
        if odd
    ]


def _require_stems(folder: Path, pictures: Sequence[str]) -> None:
    """Refuse pictures that differ by their endings alone, for their masks would have one name."""
    seen: dict[str, str] = {}
    for picture in pictures:
        other = seen.setdefault(str(PurePosixPath(picture).with_suffix("")), picture)
        if other != picture:
            raise LabellingError(f"{folder}: {other} and {picture} would have the same mask; rename one of them")
