"""The doctor's checks before a run: what the readers repair is told, any error stops the run unless accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from training.data.doctor.codes import CODES
from training.data.doctor.examine import examine
from training.data.doctor.findings import Examination, Severity, describe
from training.data.doctor.verdicts import CACHE_NAME
from training.files import find_cache_folder


class UnfitDataError(ValueError):
    """The data has faults that nobody repairs and nobody accepted."""


def check_data(
    path: Path, accepted: Collection[str], tell: Callable[[str], None], *, root: Path | None = None
) -> Examination:
    """Examine the sets that a run is to learn from.

    Args:
        path: a folder of data sets, or a data file.
        accepted: codes of errors to train with all the same.
        tell: is given one text per finding, information left out.
        root: folder that the paths of a data file count from.

    Returns:
        All that was found.

    Raises:
        LayoutError: there is no data set below `path`.
        UnfitDataError: an error is not accepted; or an accepted code is unknown.
    """
    if unknown := sorted(set(accepted) - CODES.keys()):
        raise UnfitDataError(f"--accept knows no code {unknown[0]!r}; `unihead-data doctor` prints those it found")
    refused = []
    examination = examine(path, root, cache=find_cache_folder(CACHE_NAME))
    for finding in examination.findings:
        if finding.severity is Severity.INFO:
            continue
        tell(describe(finding))
        if finding.severity is Severity.ERROR and finding.code not in accepted:
            refused.append(finding.code)
    if refused:
        raise UnfitDataError(
            f"{path} has errors that training does not repair: {', '.join(refused)}; mend the data "
            f"(`unihead-data doctor {path}` lists every case), or train all the same with "
            + " ".join(f"--accept {code}" for code in refused)
        )
    return examination
