"""What each teacher has said, kept for a run that goes on after a stop, and for later ones with other rules."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from PIL import Image

from training.data.labelling.answers import Answer, BoxAnswer, ClassAnswer, MaskAnswer
from training.data.labelling.faults import LabellingError
from training.data.labelling.network import Network
from training.files import open_whole
from training.options.base import Task

# To be raised when answers come to mean something else, so that those of an earlier version are not taken.
_VERSION: Final = 1
_FILE_NAME: Final = "answers.jsonl"


class Journal:
    """One teacher's answers: a line a picture, appended when the answer is whole; masks as PNGs beside it.

    Used as a context manager; several threads may write at once, a second process may not.
    """

    def __init__(self, folder: Path, network: Network) -> None:
        """Name the folder of this teacher's answers: under what its file is, and how it is fed and read.

        Args:
            folder: of all teachers' answers.
            network: the teacher.
        """
        self.folder = folder / f"{network.path.stem}-{_VERSION}-{network.key[:16]}"
        self._task = network.description.task
        self._places: dict[str, tuple[str, int, int]] = {}  # SHA-256 of the picture; begin and length of its line
        self._end = 0
        self._lock = threading.Lock()
        self._file: BinaryIO

    def __enter__(self) -> Self:
        """Read what is there, up to the first line that is not whole; the rest is cut off.

        Raises:
            LabellingError: another run writes here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / _FILE_NAME).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise LabellingError(f"{self.folder.parent.parent}: another run is writing there; wait for it") from error
        self._file.seek(0)
        for line in self._file:
            try:
                fields = json.loads(line if line.endswith(b"\n") else b"")
            except ValueError:  # cut by a kill, or by the power that went
                break
            self._note(fields["picture"], fields["sha256"], len(line))
        self._file.truncate(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, picture: str, sha256: str) -> bool:
        """Whether the answer about a picture with these bytes is there."""
        return self._places.get(picture, ("", 0, 0))[0] == sha256

    def add(self, picture: str, sha256: str, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            OSError: it cannot be written.
        """
        fields: dict[str, Any] = {"picture": picture, "sha256": sha256}
        if isinstance(answer, BoxAnswer):
            boxes, scores = answer.boxes.astype(np.float64).round(2), answer.scores.astype(np.float64).round(5)
            rows = zip(boxes.tolist(), scores.tolist(), answer.labels.tolist(), strict=True)
            fields["boxes"] = [[*box, score, label] for box, score, label in rows]
        elif isinstance(answer, ClassAnswer):
            fields["probs"] = answer.probs.astype(np.float64).round(6).tolist()
        else:
            path = self._mask_of(picture)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_whole(path) as file:
                both = np.stack([answer.ids, answer.probs], axis=2)
                Image.fromarray(both, "LA").save(file, "PNG", compress_level=1)
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._note(picture, sha256, len(line))

    def read(self, picture: str) -> Answer:
        """The answer about a picture; there has to be one."""
        if self._task is Task.SEGMENTATION:
            with Image.open(self._mask_of(picture)) as both:
                ids, probs = np.moveaxis(np.asarray(both), 2, 0)
            return MaskAnswer(ids, probs)
        _, begin, length = self._places[picture]
        fields = json.loads(os.pread(self._file.fileno(), length, begin))
        if self._task is Task.CLASSIFICATION:
            return ClassAnswer(np.array(fields["probs"], dtype=np.float32))
        rows = np.array(fields["boxes"], dtype=np.float64).reshape(-1, 6)
        return BoxAnswer(rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32), rows[:, 5].astype(np.int64))

    def _note(self, picture: str, sha256: str, length: int) -> None:
        self._places[picture] = sha256, self._end, length
        self._end += length

    def _mask_of(self, picture: str) -> Path:
        return self.folder / "masks" / f"{picture}.png"
