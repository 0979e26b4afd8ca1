"""The doctor's whole round over one folder: find the sets, read what they list, decode each file once, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.machine import available_cpus
from training.config import DEFAULT_PRESET, Config, load_config
from training.data.doctor.balance import report_cells, report_classes
from training.data.doctor.codes import Ledger
from training.data.doctor.contents import Entry, read_contents
from training.data.doctor.findings import Examination, Picture, SetSummary, SplitSummary
from training.data.doctor.layouts import ExaminedSet, find_sets
from training.data.doctor.mask_values import MaskNames, name_masks, report_masks
from training.data.doctor.overlaps import Seen, report_overlaps
from training.data.doctor.pictures import MaskFacts, PictureFacts
from training.data.doctor.verdicts import MASKS, PICTURES, Verdicts


def examine(
    path: Path, root: Path | None = None, *, cache: Path | None = None, config: Config | None = None
) -> Examination:
    """Examine every data set that a folder is, or holds, or that a data file names; nothing on disk is changed.

    Args:
        path: a folder or a data file.
        root: folder that the paths of a data file count from.
        cache: folder that keeps what was found in each file, for as long as the file does not change; None: nothing is
            kept.
        config: of the network that is to learn, whose input and grids objects may be too many for; that of the preset
            `default` if not given.

    Raises:
        LayoutError: there is no such folder or file, or no data set in it.
    """
    found = find_sets(path, root)
    config = config or load_config(DEFAULT_PRESET)
    ledger = Ledger(path if path.is_dir() else root or path.parent)
    seen: list[Seen] = []
    # Decoding releases the GIL; more threads than cores only hold more pictures in memory.
    with ThreadPoolExecutor(max_workers=available_cpus()) as pool, Verdicts(cache, pool) as verdicts:
        sets = tuple(_examine_set(each, found, verdicts, seen, ledger, config) for each in found)
    report_overlaps(seen, ledger)
    return Examination(ledger.root, sets, ledger.findings())


def _examine_set(
    each: ExaminedSet,
    others: Sequence[ExaminedSet],
    verdicts: Verdicts,
    seen: list[Seen],
    ledger: Ledger,
    config: Config,
) -> SetSummary:
    contents = read_contents(each, ledger, others=others)
    names = name_masks(contents)
    summaries: list[SplitSummary] = []
    pictures: list[Picture] = []
    pictures_by_class: dict[str, Counter[str]] = {}
    for name, split in contents.items():
        masked = {entry.path: entry.mask for entry in split.entries if entry.mask is not None}
        masks = dict(zip(masked, verdicts.inspect(MASKS, list(masked.values())), strict=True))
        facts = verdicts.inspect(PICTURES, [entry.path for entry in split.entries])
        readable = []
        for entry, fact in zip(split.entries, facts, strict=True):
            _report_files(entry, fact, masks, ledger)
            if fact.size is not None and fact.thumbnail is not None:
                seen.append(Seen(entry.path, each.found.root, name, fact.sha256, fact.thumbnail))
                values = names.tables.get(name)
                readable.append(Picture(entry.path, *fact.size, name, entry.boxes, entry.mask, entry.label, values))
        report_masks(split, masks, ledger)
        counted = _count_classes(readable, masks, names)
        pictures_by_class[name] = Counter(label for counts in counted for label in counts)
        summaries.append(_summarise(name, readable, counted))
        report_cells(
            name,
            split.source,
            readable,
            ledger,
            input_size=config.input_size,
            strides=config.model.strides,
        )
        pictures += readable
    report_classes(contents, pictures_by_class, ledger)
    return SetSummary(
        each.name,
        each.source.task.value,
        each.found.layout.words,
        each.found.root,
        tuple(summaries),
        tuple(pictures),
        names.names,
    )


def _report_files(entry: Entry, fact: PictureFacts, masks: Mapping[Path, MaskFacts], ledger: Ledger) -> None:
    for code, detail in fact.faults:
        ledger.add(code, entry.path, detail)
    if None not in {fact.size, entry.listed_size} and fact.size != entry.listed_size:
        ledger.add(
            "picture-size-differs", entry.path, f"{_sides(fact.size)}; its file says {_sides(entry.listed_size)}"
        )
    if entry.mask is None:
        return
    mask, place = masks[entry.path], entry.mask if isinstance(entry.mask, Path) else entry.path
    for code, detail in mask.faults:
        ledger.add(code, place, detail)
    if None not in {fact.size, mask.size} and fact.size != mask.size:
        ledger.add("mask-size-differs", place, f"{_sides(mask.size)}; its picture is {_sides(fact.size)}")


def _sides(size: tuple[int, int] | None) -> str:
    return "unknown" if size is None else f"{size[0]} x {size[1]}"


def _count_classes(
    pictures: Sequence[Picture], masks: Mapping[Path, MaskFacts], names: MaskNames
) -> list[Counter[str]]:
    """Count for each picture its objects, or pixels without background, by class name."""
    counted = []
    for picture in pictures:
        counts = Counter(name for name, _, is_crowd in picture.boxes if not is_crowd)
        if picture.label is not None:
            counts[picture.label] += 1
        if picture.mask is not None:
            counts.update(names.count(picture.split, masks[picture.path].pixels_by_value or ()))
        counted.append(counts)
    return counted


def _summarise(name: str, pictures: Sequence[Picture], counted: Sequence[Counter[str]]) -> SplitSummary:
    total: Counter[str] = sum(counted, Counter())
    areas = [
        max(0.0, x2 - x1) * max(0.0, y2 - y1)
        for picture in pictures
        for _, (x1, y1, x2, y2), is_crowd in picture.boxes
        if not is_crowd
    ]
    sizes = tuple((picture.width, picture.height) for picture in pictures)
    return SplitSummary(name, len(pictures), dict(total.most_common()), tuple(area**0.5 for area in areas), sizes)
