"""How many bytes of bodies all requests together may hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from service.errors import Overloaded


class BodyBudget:
    """Counts bytes as they come, not as they are announced: who announces much and sends nothing takes nothing.

    Attributes:
        limit: bytes in all.
        taken: bytes of the requests that are being read or worked on.
    """

    def __init__(self, limit: int, count_refusal: Callable[[], None]) -> None:
        self.limit = limit
        self._count_refusal = count_refusal
        self.taken = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Held]:
        """One request's share, from its first byte to its answer."""
        held = Held(self)
        try:
            yield held
        finally:
            self.taken -= held.number

    def take(self, number: int) -> None:
        """Count some more bytes.

        Raises:
            Overloaded: they would be more than the limit.
        """
        if self.taken + number > self.limit:
            self._count_refusal()
            sentence = f"the bodies under way have {self.taken} bytes; {self.limit} are the limit"
            raise Overloaded(sentence, reason="bodies", retry_after_s=1)
        self.taken += number


class Held:
    """What one request holds.

    Attributes:
        number: bytes.
    """

    __slots__ = ("_budget", "number")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.number = 0

    def take(self, number: int) -> None:
        """Hold more.

        Raises:
            Overloaded: all together would hold more than the limit.
        """
        self._budget.take(number)
        self.number += number
