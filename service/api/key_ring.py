"""The keys in force, which a running service reads anew when it is told to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from service.api.keys import KeyFileError, Keys, read_keys
from service.rollout.reload import Reloader
from service.telemetry.metrics import Outcome

logger = logging.getLogger("unihead")


class KeyRing:
    """Holds no key, and lets nobody in, until it is loaded.

    Attributes:
        keys: that are in force.
        reloader: reads the file anew; if it cannot be used, the old keys stay in force.
    """

    def __init__(self, path: Path, *, timeout_s: float, count: Callable[[Outcome], None]) -> None:
        """Read nothing yet.

        Args:
            path: of the key file.
            timeout_s: seconds that reading it anew may take.
            count: told how each reload ended.
        """
        self.keys = Keys()
        self._path = path
        self.reloader = Reloader(
            name="keys",
            load=self._read,
            timeout_s=timeout_s,
            swap=self._swap,
            describe=lambda: str(self.keys),
            expected=KeyFileError,
            count=count,
        )

    def load(self) -> None:
        """Read the file, before there is anything to fall back on.

        Raises:
            KeyFileError: it cannot be used.
        """
        self.keys = self._read()
        logger.info("keys in force: %s", self.keys)

    def _swap(self, keys: Keys) -> bool:
        is_new = list(keys.hashes.items()) != list(self.keys.hashes.items())
        if is_new:
            self.keys = keys
        return is_new

    def _read(self) -> Keys:
        keys, warning = read_keys(self._path)
        if warning:
            logger.warning(warning)
        return keys
