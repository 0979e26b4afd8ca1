"""From a file of weights into a network: what fits by name and shape, and rows of classes by the classes' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.checkpoint import CheckpointError
from training.config import ModelConfig, Task
from training.data.taxonomy import Taxonomy, normalise_name
from training.models.multitask import MultiTaskModel
from training.models.rows import Row, label_rows
from training.starting.origin import Origin

# Which tasks read a part; those that are not here are read by all.
_READERS = {str(task): frozenset({task}) for task in Task} | {"tail": frozenset({Task.CLASSIFICATION})}


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one tensor of the network.

    Attributes:
        name: of it.
        part: of the network that it is in.
        rows: how many of its rows were taken; of a layer that has none by class, 1 or 0.
        of_rows: how many there are.
        anew: tasks whose answers depend on what begins anew in it.
    """

    name: str
    part: str
    rows: int
    of_rows: int
    anew: frozenset[Task]


@dataclass(frozen=True, slots=True)
class Takeover:
    """What a network has taken of a file.

    Attributes:
        tensors: of the network.
        unused: names of the file's tensors of which it has nothing.
    """

    tensors: Sequence[Taken]
    unused: Sequence[str]

    def rows_of_table(self) -> list[tuple[str, str, str, str]]:
        """Part, tensors taken, tensors begun anew, tensors of the file not used; by the network's parts, in order."""
        whole = Counter(one.part for one in self.tensors if one.rows == one.of_rows)
        none = Counter(one.part for one in self.tensors if not one.rows)
        unused = Counter(find_part(name) for name in self.unused)
        by_rows: dict[str, list[Taken]] = {}
        for one in self.tensors:
            if 0 < one.rows < one.of_rows:
                by_rows.setdefault(one.part, []).append(one)
        table = []
        for part in dict.fromkeys([*(one.part for one in self.tensors), *unused]):
            some = by_rows.get(part, [])
            shares = dict.fromkeys(f"{one.rows} of {one.of_rows} rows" for one in some)
            partly = f" and {len(some)} in part ({', '.join(shares)})" if some else ""
            table.append((part, f"{whole[part]}{partly}", str(none[part]), str(unused[part])))
        return table


def find_part(name: str) -> str:
    """The part of the network that a tensor is in, by its name; "other" of names that are not ours."""
    first, _, rest = name.partition(".")
    if first != "head":
        return first if first in {"backbone", "neck"} else "other"
    if rest.startswith("classification.tail."):
        return "tail"
    second = rest.removeprefix("gates.").partition(".")[0]
    return second if second in set(Task) else "stem"


def fits_whole_part(model: MultiTaskModel, origin: Origin, parts: Collection[str]) -> bool:
    """Whether the file holds every tensor of these parts, so that nobody else's weights are needed for them."""
    return all(
        name in origin.state and origin.state[name].shape == value.shape
        for name, value in model.state_dict().items()
        if find_part(name) in parts
    )


@torch.no_grad()
def take_over(model: MultiTaskModel, config: ModelConfig, taxonomy: Taxonomy, origin: Origin) -> Takeover:
    """Put into a network what fits it of a file of weights.

    A tensor is taken by its name if it has the same shape. Of a layer with a row for each class, rows are taken whose
    class has the same name in the checkpoint; of a file that names no classes, the layer as a whole or not at all.

    Args:
        model: changed in place.
        config: of the network.
        taxonomy: its classes.
        origin: the file.

    Raises:
        CheckpointError: nothing fits.
    """
    mine, theirs = _label(config, taxonomy), {}
    if origin.checkpoint is not None:
        theirs = _label(origin.checkpoint.parsed_config().model, origin.checkpoint.taxonomy)
    tensors, used = [], set()
    for name, value in model.state_dict().items():
        labels, their_labels = (labelled.get(name.rpartition(".")[0]) for labelled in (mine, theirs))
        tensor = _take_rows(name, value, origin.state.get(name), labels, their_labels)
        tensors.append(tensor)
        if tensor.rows:
            used.add(name)
    if not any(name.endswith(".weight") for name in used):
        raise CheckpointError(
            f"nothing in {origin.path} fits the network: of its {len(origin.state)} tensors none has the name and "
            "shape of one; ImageNet weights of the backbone go with --backbone-weights"
        )
    return Takeover(tensors, [name for name in origin.state if name not in used])


def _label(config: ModelConfig, taxonomy: Taxonomy) -> dict[str, tuple[Row, ...]]:
    names = {task: [normalise_name(name) for name in taxonomy.names(task)] for task in taxonomy.tasks}
    return label_rows(config, names)


def _take_rows(
    name: str, value: Tensor, other: Tensor | None, labels: Sequence[Row] | None, their_labels: Sequence[Row] | None
) -> Taken:
    """Copy what fits of one tensor."""
    part = find_part(name)
    if other is not None and labels and their_labels:
        places = {label: place for place, label in enumerate(their_labels)}
        fits = other.shape[1:] == value.shape[1:] and len(other) == len(their_labels)
        taken = {row: places[label] for row, label in enumerate(labels) if fits and label in places}
        for row, place in taken.items():
            value[row] = other[place].to(value.dtype)
        anew = frozenset(label.task for row, label in enumerate(labels) if row not in taken)
        return Taken(name, part, len(taken), len(labels), anew)
    if other is not None and other.shape == value.shape:
        value.copy_(other)
        return Taken(name, part, 1, 1, frozenset())
    return Taken(name, part, 0, 1, _READERS.get(part, frozenset(Task)))
