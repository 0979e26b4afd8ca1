"""A data file with everything said that was only found out, for people to read and to change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.data.layouts.faults import DataError, Faults
from training.data.layouts.readings import Layout
from training.data.sets.data_file import DataFile, Source
from training.data.sets.guess import READERS
from training.data.sets.opening import Opened, find_values, locate, propose_values


def complete(data: DataFile, opened: Sequence[Opened], roots: Sequence[Path]) -> DataFile:
    """Add to each source its layout, and to masks that nothing names a `values` line to be edited."""
    by_source = {id(each.source): each for each in opened}
    return data.model_copy(
        update={"source": tuple(_complete(source, by_source.get(id(source)), data, roots) for source in data.source)}
    )


def _complete(source: Source, opened: Opened | None, data: DataFile, roots: Sequence[Path]) -> Source:
    if opened is not None:
        update: dict[str, object] = {"layout": opened.found.layout}
        if opened.told and opened.found.layout is Layout.MASKS:  # its values count, and have no names
            update["values"] = propose_values(find_values(opened.readings))
        return source.model_copy(update=update)
    try:
        _, found = locate(source, roots)
        if found.layout is not Layout.MASKS or source.values or source.names or data.classes.segmentation:
            return source
        readings = {split: READERS[found.layout](place, Faults()) for split, place in found.places.items()}
        values = find_values(readings) if not any(reading.names for reading in readings.values()) else []
    except DataError:
        return source
    return source.model_copy(update={"values": propose_values(values)}) if values else source
