"""Two versions side by side: a start is timed, rounds alternate, and the table compares with the first."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks import start
from tests.benchmarks.start import format_table, measure_in_turns, measure_start


def test_the_table_has_median_spread_and_multiple_of_the_first() -> None:
    seen = [[{"cpu_ms": value} for value in values] for values in ((2.0, 2.5, 1.5), (3.0, 3.0, 3.3))]
    assert list(format_table([Path("old"), Path("new")], seen))[2:] == [
        "| cpu_ms | old | 2, 2.5, 1.5 | 2 | 50.0% | 1.000 |",
        "| cpu_ms | new | 3, 3, 3.3 | 3 | 10.0% | 1.500 |",
    ]


def test_every_other_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "measure_start", lambda _: 0.0)
    asked: list[str] = []

    def measure(environment: Path) -> dict[str, float]:
        asked.append(environment.name)
        return {"number": float(len(asked))}

    seen = measure_in_turns([Path("old"), Path("new")], 3, measure)
    assert asked == ["old", "new", "new", "old", "old", "new"]
    assert [[figures["number"] for figures in rounds] for rounds in seen] == [[1, 4, 5], [2, 3, 6]]


@pytest.mark.slow
def test_a_start_takes_the_time_until_the_service_is_ready() -> None:
    assert 0.2 < measure_start(Path(sys.prefix)) < 30


def test_a_service_that_ends_is_no_start(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "unihead-serve"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexit 3\n")
    command.chmod(0o755)
    with pytest.raises(RuntimeError, match="ended with 3"):
        measure_start(tmp_path)
