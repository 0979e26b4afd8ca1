"""The message that a connection takes in: how far it has come, and what reading it has cost."""

from __future__ import annotations

from typing import Literal, TypeAlias

from service.errors import MalformedRequest
from service.settings import Settings

# Chunks of a body cost time however small they are: so many may be, and beyond it they have so many bytes on average.
_FREE_CHUNKS, _CHUNK_BYTES = 1024, 128


# Of the incoming side of a connection; requests that came before may still be answered in any phase.
#
#   idle       no byte of the next message has come
#   head       its head comes in, or the empty lines before it
#   body       its body comes in
#   stopped    no other message is read; what has come so far is still to be answered
#   lingering  the last answer is written, and the client may read it
#
# No Enum: reading a member costs more than comparing strings, and every request does so a dozen times.
Phase: TypeAlias = Literal["idle", "head", "body", "stopped", "lingering"]


class IncomingMessage:
    """One for each connection, whose messages follow each other.

    Attributes:
        phase: how far it has come.
        overhead_bytes: received since it began, or since its head or a piece of its body was complete.
    """

    __slots__ = ("_began", "_chunk_bytes", "_chunks", "_settings", "overhead_bytes", "phase")

    def __init__(self, settings: Settings, now: float) -> None:
        """Wait for the first message, whose clock runs.

        Args:
            settings: how long it may take.
            now: in seconds of the loop's clock, as all times here.
        """
        self._settings = settings
        self.phase: Phase = "idle"
        self._began = now
        self.overhead_bytes = 0
        self._chunks = self._chunk_bytes = 0

    @property
    def head_deadline(self) -> float:
        """Until when its head should be complete, unless another request is being answered meanwhile."""
        return self._began + self._settings.header_timeout_s

    @property
    def body_deadline(self) -> float:
        """Until when all of it should be there; as above."""
        return self._began + self._settings.body_timeout_s

    def begin(self, now: float) -> None:
        """Take the first byte of the next message."""
        self.phase, self._began, self.overhead_bytes = "head", now, 0

    def begin_body(self) -> None:
        """The head is complete."""
        self.phase, self.overhead_bytes = "body", 0
        self._chunks = self._chunk_bytes = 0

    def count_chunk(self) -> None:
        """Count a chunk that begins.

        Raises:
            MalformedRequest: there are too many for what is in them.
        """
        self._chunks += 1
        if self._chunks > _FREE_CHUNKS + self._chunk_bytes // _CHUNK_BYTES:
            raise MalformedRequest(f"the body comes in too many chunks; send {_CHUNK_BYTES} bytes and more in each")

    def count_body(self, size: int) -> None:
        """Count a piece of the body, of so many bytes."""
        self.overhead_bytes = 0
        self._chunk_bytes += size

    def end(self) -> None:
        """The message is complete."""
        self.phase, self.overhead_bytes = "idle", 0
