"""Batches made before they are asked for, by threads; the same batches in the same order as without."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import torch

from service.machine import available_cpus
from training.data.batches import Batch

_MOST_THREADS = 8
_BATCHES_AHEAD = 4  # one that takes long, of large pictures, is waited for all the same

One = TypeVar("One")
Other = TypeVar("Other")
Made: TypeAlias = tuple[Batch, dict[str, Any]]


class Resumable(Protocol):
    """Batches that know how far they have been gone through."""

    def __next__(self) -> Batch:
        """Make the next batch."""

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""


def count_threads(workers: int | Literal["auto"], device: torch.device, *, processes: int = 1) -> int:
    """Say how many threads read pictures.

    Args:
        workers: as the preset says. "auto": as many as there are CPUs that the network leaves, one at least, 8 at most.
        device: of the network; on the CPU it has as many threads as torch.
        processes: that share the CPUs.
    """
    if workers != "auto":
        return workers
    taken = torch.get_num_threads() if device.type == "cpu" else 1
    return min(max(available_cpus() // processes - taken, 1), _MOST_THREADS)


class Readers:
    """The threads that read pictures for a run: one that makes batches, and others that decode for it."""

    def __init__(self, threads: int = 0) -> None:
        """Hire them; with 0 everything is done by whoever asks for it, when he asks."""
        self._is_ahead = threads > 0
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="decode") if threads > 1 else None

    def map(self, work: Callable[[One], Other], items: Iterable[One]) -> Iterator[Other]:
        """What `work` gives for each item, in their order; of several at once where there are threads for it."""
        return map(work, items) if self._pool is None else self._pool.map(work, items)

    def make_ahead(self, batches: Resumable) -> Ahead:
        """Have the batches made before they are asked for."""
        return Ahead(batches, _BATCHES_AHEAD if self._is_ahead else 0)


class Ahead(Iterator[Batch]):
    """Has a thread make batches, up to a number ahead of the one that was taken last.

    The state is that of the last batch taken: those that wait are made again by a run that goes on from it. What is
    raised in making one is raised in taking it.
    """

    def __init__(self, batches: Resumable, depth: int) -> None:
        """Nothing is made before the first batch is asked for.

        Args:
            batches: made by one thread alone, from now on.
            depth: how many may wait; 0: none, each is made when it is asked for.
        """
        self._batches = batches
        self._depth = depth
        self._taken = batches.state_dict()
        self._thread: threading.Thread | None = None
        self._free = threading.Semaphore(depth)
        self._made: queue.SimpleQueue[Made | BaseException] = queue.SimpleQueue()
        self._is_closed = False

    def __next__(self) -> Batch:
        """Take the next batch; wait for it if it is not made."""
        if not self._depth:
            batch = next(self._batches)
            self._taken = self._batches.state_dict()
            return batch
        if self._thread is None:
            # A daemon: a process that ends without `close` does not wait for batches that nobody will take.
            self._thread = threading.Thread(target=self._make, name="batches", daemon=True)
            self._thread.start()
        found = self._made.get()
        if isinstance(found, BaseException):
            self._made.put(found)  # whoever asks again is told again
            raise found
        self._free.release()
        batch, self._taken = found
        return batch

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on after the last batch that was taken."""
        return self._taken

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken; before the first batch is asked for."""
        self._batches.load_state_dict(state)
        self._taken = state

    def close(self) -> None:
        """End the thread, when the batch that it is at is made."""
        self._is_closed = True
        self._free.release()
        if self._thread is not None:
            self._thread.join()

    def _make(self) -> None:
        try:
            while self._free.acquire() and not self._is_closed:
                self._made.put((next(self._batches), self._batches.state_dict()))
        except BaseException as error:  # noqa: BLE001 - StopIteration too: all of them belong to whoever takes the batch
            self._made.put(error)
