"""Places for connections: so many as the setting says, and a few more where only health and metrics are answered."""

from __future__ import annotations

from typing import Protocol

# Beyond the limit; each is kept for milliseconds, unless its client is in no hurry.
SPARE_PLACES = 64


class Guest(Protocol):
    """What is asked of a connection that has a place."""

    @property
    def is_untaken(self) -> bool:
        """Whether its client still takes an answer."""

    def close(self) -> None:
        """Close without an answer."""


class Places:
    """Who has which place, and who would make room for others.

    At the limit a new connection takes the place of the one that has waited longest for a request, or for the rest of
    its header: half headers, however many, keep nobody out. Where all are at work it gets a spare place, whose
    longest holder, again, makes room: nobody has anything to do there that takes long.
    """

    def __init__(self, limit: int) -> None:
        """Begin with all places free.

        Args:
            limit: connections that have a place of their own.
        """
        self.limit = limit
        self._own: set[Guest] = set()
        # In the order in which they began to wait, or came.
        self._waiting: dict[Guest, None] = {}
        self._spare: dict[Guest, None] = {}

    def take(self, guest: Guest) -> bool:
        """Give a new connection a place; returns whether it is a spare one."""
        if len(self._own) >= self.limit and not self._make_room():
            if len(self._spare) >= SPARE_PLACES:
                self._close(next(iter(self._spare)))
            self._spare[guest] = None
            return True
        self._own.add(guest)
        self._waiting[guest] = None
        return False

    def wait(self, guest: Guest) -> None:
        """Note that a connection waits from now on: for a request, or the rest of its header."""
        if guest in self._own:
            self._waiting.pop(guest, None)
            self._waiting[guest] = None

    def work(self, guest: Guest) -> None:
        """Note that a connection is at work: a body comes, or an answer is made."""
        self._waiting.pop(guest, None)

    def leave(self, guest: Guest) -> None:
        """Free the place of a connection."""
        self._own.discard(guest)
        self._waiting.pop(guest, None)
        self._spare.pop(guest, None)

    def _make_room(self) -> bool:
        # What its client still takes would keep its memory, and its socket, after it is closed.
        longest = next((guest for guest in self._waiting if not guest.is_untaken), None)
        if longest is not None:
            self._close(longest)
        return longest is not None

    def _close(self, guest: Guest) -> None:
        self.leave(guest)
        guest.close()
