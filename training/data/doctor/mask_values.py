"""What the values of masks mean, and which of them mean nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.doctor.codes import Ledger
from training.data.doctor.contents import SplitContents
from training.data.doctor.pictures import MaskFacts
from training.data.sets.data_file import BACKGROUND, VOID_NAME
from training.data.sets.opening import propose_values
from training.data.taxonomy import VOID

_NO_CLASS = -1


@dataclass(frozen=True, slots=True)
class MaskNames:
    """The classes of a set's masks.

    Attributes:
        names: background first.
        tables: by split: position in the names of each of 256 values, `VOID`, or -1 for a value that is no class.
    """

    names: tuple[str, ...]
    tables: Mapping[str, tuple[int, ...]]

    def count(self, split: str, pixels_by_value: Sequence[int]) -> Counter[str]:
        """Pixels of each class of one mask; background and void are left out."""
        counts: Counter[str] = Counter()
        for label, pixels in zip(self.tables[split], pixels_by_value, strict=False):
            if pixels and 0 < label < len(self.names):
                counts[self.names[label]] += pixels
        return counts


def name_masks(contents: Mapping[str, SplitContents]) -> MaskNames:
    """Number the classes of all splits alike."""
    every = (name for split in contents.values() for name in split.names if name not in {None, VOID_NAME, BACKGROUND})
    names = tuple(dict.fromkeys([BACKGROUND, *(str(name) for name in every)])) if _has_masks(contents) else ()
    place = {name: label for label, name in enumerate(names)} | {VOID_NAME: VOID}
    tables = {}
    for name, split in contents.items():
        table = [_NO_CLASS] * VOID + [VOID]
        for value, each in enumerate(split.names):
            table[value] = _NO_CLASS if each is None else place[each]
        if len(split.names) > VOID and split.names[VOID] is None:
            table[VOID] = VOID
        tables[name] = tuple(table)
    return MaskNames(names, tables)


def report_masks(split: SplitContents, masks: Mapping[Path, MaskFacts], ledger: Ledger) -> None:
    """Write a case for each mask whose values are no class, and for a split whose masks show none at all."""
    if not masks or not split.names:  # where nothing names them, that is told of the set
        return
    named = {value for value, name in enumerate(split.names) if name is not None} | {VOID}
    classes = {value for value, name in enumerate(split.names) if name not in {None, VOID_NAME, BACKGROUND}}
    occurring = [
        {value for value, count in enumerate(facts.pixels_by_value or ()) if count} for facts in masks.values()
    ]
    every = set().union(*occurring)
    line = ", ".join(f'{value} = "{name}"' for value, name in propose_values(sorted(every)).items())
    cure = f"; if they mean something else, write values = {{{line}}} into a data file"
    for entry in split.entries:
        if entry.mask is None:
            continue
        values = masks[entry.path].pixels_by_value or ()
        strange = [value for value, count in enumerate(values) if count and value not in named]
        if strange:
            place = entry.mask if isinstance(entry.mask, Path) else entry.path
            ledger.add("mask-value-unknown", place, f"holds {strange}; wanted {_span(named)} or void {VOID}{cure}")
    if every and not every & classes and every <= named:
        sentence = f"its {len(masks)} masks hold {', '.join(map(str, sorted(every)))} alone: no class, nothing to learn"
        ledger.add("masks-without-class", split.source, sentence + cure)


def _has_masks(contents: Mapping[str, SplitContents]) -> bool:
    return any(split.names for split in contents.values())


def _span(named: set[int]) -> str:
    """The values that are classes: `0..20`, or each of them."""
    values = sorted(named - {VOID})
    is_whole = values == list(range(len(values)))
    return f"classes 0..{len(values) - 1}" if is_whole else f"classes {', '.join(map(str, values))}"
