"""The keys in force, which a running service reads anew when it is told to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.api.keys import KeyFileError, Keys, read_keys
from service.telemetry.metrics import Outcome

logger = logging.getLogger("unihead")


@dataclass(frozen=True, slots=True)
class KeyReload:
    """How one reading of the key file ended.

    Attributes:
        number: how many there have been, this one included.
        outcome: what happened to the new keys.
        reason: why the file was refused; empty otherwise.
        finished_at: seconds since 1970.
    """

    number: int
    outcome: Outcome
    reason: str
    finished_at: float


class KeyRing:
    """Holds no key, and lets nobody in, until it is loaded.

    Attributes:
        keys: that are in force.
        last: how the latest reload ended; None before the first.
    """

    def __init__(self, path: Path, *, count: Callable[[Outcome], None]) -> None:
        """Read nothing yet.

        Args:
            path: of the key file.
            count: told how each reload ended.
        """
        self.keys = Keys()
        self.last: KeyReload | None = None
        self._path = path
        self._count = count
        self._lock = asyncio.Lock()
        self._number = 0

    def load(self) -> None:
        """Read the file, before there is anything to fall back on.

        Raises:
            KeyFileError: it cannot be used.
        """
        self.keys = self._read()
        logger.info("keys in force: %s", self.keys)

    async def reload(self) -> KeyReload:
        """Read the file anew; if it cannot be used, the old keys stay in force."""
        async with self._lock:  # who read later may not be overtaken
            outcome, reason = await self._try()
            self._number += 1
            self._count(outcome)
            self.last = KeyReload(self._number, outcome, reason, time.time())
            if outcome == "refused":
                logger.error("the keys stay as they are, because the key file was refused: %s", reason)
            else:
                logger.info("keys reloaded: %s, in force: %s", outcome, self.keys)
            return self.last

    async def _try(self) -> tuple[Outcome, str]:
        try:
            keys = await asyncio.to_thread(self._read)
        except KeyFileError as error:
            return "refused", str(error)
        if list(keys.hashes.items()) == list(self.keys.hashes.items()):
            return "unchanged", ""
        self.keys = keys
        return "swapped", ""

    def _read(self) -> Keys:
        keys, warning = read_keys(self._path)
        if warning:
            logger.warning(warning)
        return keys
