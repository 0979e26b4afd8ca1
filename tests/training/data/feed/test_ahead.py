import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.fakes import make_config
from training.data.batches import Batch
from training.data.datasets import DataError, DataSets
from training.data.feed.ahead import Ahead, Readers, count_threads
from training.data.feed.dataset import open_datasets

CPU = torch.device("cpu")


class Counting:
    """Batches that are nothing but their number; says in which thread each was made."""

    def __init__(self, end: int, *, fail_at: int = -1) -> None:
        self._end = end
        self._fail_at = fail_at
        self.made = 0
        self.threads: set[str] = set()

    def __next__(self) -> Batch:
        if self.made == self._end:
            raise StopIteration
        if self.made == self._fail_at:
            raise DataError("a.jpg: is no picture")
        self.threads.add(threading.current_thread().name)
        self.made += 1
        return Batch(torch.zeros(1), torch.zeros(1), torch.tensor([self.made - 1]))

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_all_batches_come_in_their_order(depth: int) -> None:
    batches = Counting(7)
    ahead = Ahead(batches, depth)
    assert [int(batch.indices) for batch in ahead] == list(range(7))
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()
    assert batches.threads == {"batches" if depth else "MainThread"}


def test_so_many_are_made_ahead_and_no_more() -> None:
    batches = Counting(100)
    ahead = Ahead(batches, 3)
    assert batches.made == 0
    next(ahead)
    wait_until(lambda: batches.made == 4)
    ahead.close()
    assert batches.made == 4


@pytest.mark.parametrize("depth", [0, 2])
def test_the_state_is_that_of_the_last_batch_taken(depth: int) -> None:
    ahead = Ahead(Counting(10), depth)
    assert ahead.state_dict() == {"made": 0}
    taken = [int(next(ahead).indices) for _ in range(4)]
    state = ahead.state_dict()
    ahead.close()
    again = Ahead(Counting(10), depth)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert taken + [int(batch.indices) for batch in again] == list(range(10))
    again.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_what_goes_wrong_in_making_a_batch_is_raised_in_taking_it(depth: int) -> None:
    ahead = Ahead(Counting(10, fail_at=2), depth)
    assert [int(next(ahead).indices) for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.jpg: is no picture"):
            next(ahead)
    assert ahead.state_dict() == {"made": 2}
    ahead.close()


def test_closing_ends_the_thread_whether_batches_wait_or_not() -> None:
    for taken in (0, 1, 5):
        ahead = Ahead(Counting(5), 2)
        for _ in range(taken):
            next(ahead)
        ahead.close()
    assert [thread for thread in threading.enumerate() if thread.name == "batches"] == []


def test_several_are_read_at_once_and_given_in_their_order() -> None:
    together = threading.Barrier(2, timeout=60)

    def work(number: int) -> int:
        together.wait()
        return number * 10

    assert list(Readers(3).map(work, range(6))) == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("cpus", "torch_threads", "device", "processes", "threads"),
    [
        (1, 1, "cpu", 1, 1),
        (2, 2, "cpu", 1, 1),
        (4, 2, "cpu", 1, 2),
        (16, 16, "cpu", 1, 1),
        (16, 8, "cuda", 1, 8),
        (16, 8, "cuda", 4, 3),
    ],
)
def test_the_readers_have_the_cpus_that_the_network_leaves(
    monkeypatch: pytest.MonkeyPatch, cpus: int, torch_threads: int, device: str, processes: int, threads: int
) -> None:
    monkeypatch.setattr("training.data.feed.ahead.available_cpus", lambda: cpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    assert count_threads("auto", torch.device(device), processes=processes) == threads
    assert count_threads(5, torch.device(device), processes=processes) == 5


def test_the_stages_of_a_run_have_the_same_readers(sets: DataSets) -> None:
    config = make_config(workers=2)
    datasets = open_datasets(sets, config, CPU)
    assert list(datasets) == [stage.task for stage in config.stages]
    assert len({id(dataset.readers) for dataset in datasets.values()}) == 1
