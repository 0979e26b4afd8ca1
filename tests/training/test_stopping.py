import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.checkout import ROOT
from tests.training.fakes import make_branches_config
from tests.training.watched import (
    CPU,
    KilledError,
    assert_same_run,
    assert_same_tensors,
    finish,
    kill_after_batches,
)
from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.cli import app
from training.config import Config
from training.data.datasets import DataSets
from training.data.feed.dataset import TaskDataset
from training.stages import Run
from training.stopping import StoppedError, Watch, Wish, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("150m", 9000), ("2h", 7200), ("1h30m", 5400), ("1h0m5s", 3605), ("0", 0), ("0s", 0)],
)
def test_a_time_is_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1.5h", "30m1h", "-5m", "5 m", "h", "ten"])
def test_what_is_no_time_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 150m, 2h or 1h30m"):
        parse_duration(text)


def test_the_clock_asks_to_save_again_and_again_and_then_to_stop() -> None:
    times = [100.0]
    watch = Watch(stop_after_s=60, save_every_s=25, clock=lambda: times[-1])
    wishes = []
    for now in (100.0, 124.9, 125.0, 126.0, 151.0, 159.9, 160.0, 1000.0):
        times.append(now)
        wishes.append(watch.look())
        if wishes[-1] is Wish.SAVE:
            watch.note_saved()
    nothing, save, stop = Wish.NOTHING, Wish.SAVE, Wish.STOP_BY_CLOCK
    assert wishes == [nothing, nothing, save, nothing, save, nothing, stop, stop]


def test_without_times_nothing_is_asked() -> None:
    now = 0.0
    watch = Watch(clock=lambda: now)
    now = 1e9
    assert watch.look() is Wish.NOTHING


@pytest.mark.parametrize(
    ("number", "wish", "code"),
    [(signal.SIGTERM, Wish.STOP_BY_TERMINATION, 143), (signal.SIGINT, Wish.STOP_BY_INTERRUPT, 130)],
)
def test_the_first_signal_asks_to_stop_and_a_second_one_does_what_it_did_before(
    number: signal.Signals, wish: Wish, code: int
) -> None:
    others: list[int] = []
    before = signal.signal(number, lambda number, _: others.append(number))
    try:
        with Watch() as watch:
            signal.raise_signal(number)
            assert (watch.look(), others) == (wish, [])
            signal.raise_signal(number)
            assert others == [number]
        with Watch():
            pass
        signal.raise_signal(number)
        assert others == [number] * 2
    finally:
        signal.signal(number, before)
    assert StoppedError(wish, "here").exit_code == code


class StopAfter(Watch):
    """Asks to stop after so many steps, and to save after each before."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def look(self) -> Wish:
        self._left -= 1
        return Wish.SAVE if self._left > 0 else Wish.STOP_BY_CLOCK


def make_long_config(**changes: Any) -> Config:  # noqa: ANN401 - of the config
    """All that has a state: augmentations of each kind, dropout, averages, balancing, memory, two epochs of polish."""
    config = make_branches_config(
        polish={"epochs": 2, "batch_size": 2, "learning_rate": 1e-3, "tolerance": 1.0}, **changes
    )
    augment = {"scale": [0.5, 2.0], "stretch": 0.1, "colour": 0.3, "focus": 0.5, "sizes": [64, 96]}
    added: Sequence[dict[str, Any]] = (
        {"augment": augment | {"copy_paste": 0.5}},
        {
            "augment": augment | {"mosaic": 0.5},
            "replay": {"pictures": 2, "labels": 1.0, "outputs": 1.0},
            "ewc": {"strength": {"segmentation": 0.1}},
            "balance": "gradnorm",
        },
        {
            "augment": {"scale": [0.5, 1.6], "rand_augment": 1},
            "lr_factors": {},
            "agem": {"pictures": 2},
            "averaging": 0.1,
            "balance": "uncertainty",
            "surgery": "gradvac",
        },
    )
    stages = [stage.model_dump() | more for stage, more in zip(config.stages, added, strict=True)]
    return Config.model_validate(config.model_dump() | {"stages": stages})


@pytest.fixture(scope="module")
def left_alone(sets: DataSets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nobody stopped; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    finish(Run.start(make_long_config(), out, CPU, taxonomy=sets.taxonomy), sets, out)
    return out


def resume_until_done(sets: DataSets, out: Path, next_stop: Callable[[], int]) -> int:
    """Go on in a run, as a new process would, until it is done; says how often it was stopped."""
    stops = 0
    run = Run.start(make_long_config(), out, CPU, taxonomy=sets.taxonomy)
    while True:
        try:
            finish(run, sets, out, run_watch=StopAfter(next_stop()))
        except StoppedError:
            stops += 1
        else:
            return stops
        torch.manual_seed(99)  # another process has another state of chance
        run = Run.resume(out, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_stopped_at_random_steps_ends_as_one_that_was_left_alone(
    sets: DataSets, left_alone: Path, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stops = resume_until_done(sets, tmp_path, lambda: int(rng.integers(1, 9)))
    assert stops >= 3
    assert_same_run(tmp_path, left_alone)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 3])
def test_threads_that_read_ahead_change_nothing(sets: DataSets, left_alone: Path, tmp_path: Path, workers: int) -> None:
    config = make_long_config(workers=workers, cache_mib=0)
    run = finish(Run.start(config, tmp_path, CPU, taxonomy=sets.taxonomy), sets, tmp_path)
    assert [thread for thread in threading.enumerate() if thread.name == "batches"] == []
    assert run.checkpoint.config["workers"] == workers
    assert_same_run(tmp_path, left_alone)


@pytest.mark.slow
def test_a_run_stopped_after_every_step_ends_as_one_that_was_left_alone(
    sets: DataSets, left_alone: Path, tmp_path: Path
) -> None:
    # Three stages and the polish, of two epochs of two steps each; where a stage ends, it is asked once more.
    assert resume_until_done(sets, tmp_path, lambda: 1) == 4 * 2 * 2 + 3
    assert_same_run(tmp_path, left_alone)


@pytest.mark.slow
def test_a_run_killed_between_two_saved_steps_ends_as_one_that_was_left_alone(
    sets: DataSets, left_alone: Path, tmp_path: Path
) -> None:
    run = Run.start(make_long_config(), tmp_path, CPU, taxonomy=sets.taxonomy)
    for batches in (2, 9, 5):
        with pytest.raises(KilledError):
            finish(run, sets, tmp_path, on_batch=kill_after_batches(batches), run_watch=StopAfter(1000))
        run = Run.resume(tmp_path, CPU)
    finish(run, sets, tmp_path)
    assert_same_run(tmp_path, left_alone)


def test_the_pictures_before_the_stop_are_not_read_again(
    sets: DataSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_branches_config(stages=[{"task": "classification", "epochs": 1, "batch_size": 2}])
    run = Run.start(config, tmp_path, CPU, taxonomy=sets.taxonomy)
    with pytest.raises(StoppedError, match="in epoch 1 of 1 of classification; go on with --resume"):
        finish(run, sets, tmp_path, run_watch=StopAfter(2))
    saved = load_checkpoint(tmp_path / CHECKPOINT_NAME)
    assert saved.position is not None
    assert (saved.stage, saved.epoch, saved.position["steps"], saved.position["pictures"]) == (0, 0, 2, 4)
    loaded: list[int] = []
    load = TaskDataset.load

    def spy(self: TaskDataset, index: int) -> Any:  # noqa: ANN401 - passed on
        loaded.append(index)
        return load(self, index)

    monkeypatch.setattr(TaskDataset, "load", spy)
    done = finish(Run.resume(tmp_path, CPU), sets, tmp_path)
    assert len(loaded) == 2
    assert done.checkpoint.position is None


def run_cli(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_time_that_is_none_is_a_mistake_of_the_command_line(tiny_sets: Path, tmp_path: Path) -> None:
    code, output = run_cli("run", "--data", tiny_sets, "--out", tmp_path / "run", "--stop-after", "soon")
    assert code == 2
    assert "'soon' is no time" in output


@pytest.mark.slow
def test_a_run_that_is_out_of_time_says_how_to_go_on_and_exits_with_75(tiny_sets: Path, tmp_path: Path) -> None:
    words: list[str | Path] = ["run", "--data", tiny_sets, "--out", tmp_path / "run", "--device", "cpu"]
    code, output = run_cli(*words, "--preset", "tiny", "--stop-after", "1s")
    stops = 0
    while code == 75:
        stops += 1
        assert "stopped as --stop-after asks" in output
        assert "go on with --resume" in output
        code, output = run_cli(*words, "--resume", "--stop-after", "1s")
    assert code == 0, output
    assert stops
    assert "report: " in output


LONG = """
preset = "long"
input_size = 64
[model]
backbone_weights = "random"
neck = "fpn"
neck_channels = 16
head = "branches"
[[stages]]
task = "segmentation"
epochs = 12
batch_size = 2
ema = 0.9
augment = { scale = [0.5, 2.0], colour = 0.3, copy_paste = 0.5 }
[[stages]]
task = "detection"
epochs = 12
batch_size = 2
replay = { pictures = 2 }
augment = { scale = [0.5, 2.0], mosaic = 0.5 }
[[stages]]
task = "classification"
epochs = 12
batch_size = 2
distillation = { outputs = 1.0 }
[polish]
epochs = 6
batch_size = 2
tolerance = 1.0
"""


@pytest.fixture(scope="module")
def start(tiny_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """Starts, or resumes, a run of a minute in a process of its own, with one thread."""
    preset = tmp_path_factory.mktemp("presets") / "long.toml"
    preset.write_text(LONG)

    def begin(out: Path, *words: str) -> subprocess.Popen[str]:
        chosen = ["--resume"] if (out / CHECKPOINT_NAME).exists() else ["--preset", str(preset)]
        options = ["--data", str(tiny_sets), "--out", str(out), "--device", "cpu", "--measure-every", "5"]
        return subprocess.Popen(
            [sys.executable, "-m", "training", "run", *options, *chosen, *words],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin


@pytest.fixture(scope="module")
def unbroken(start: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of that run, left alone."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    told, _ = (process := start(out)).communicate(timeout=300)
    assert process.returncode == 0, told
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_a_process_stopped_at_random_moments_ends_as_one_that_was_left_alone(
    start: Callable[..., subprocess.Popen[str]], unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    rng = np.random.default_rng()
    out, codes, waits = tmp_path / "run", [], []
    for _ in range(2):
        process = start(out, "--save-every", "1s")
        deadline = time.monotonic() + 120
        while not (out / CHECKPOINT_NAME).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        before = (out / CHECKPOINT_NAME).stat().st_mtime_ns
        while (out / CHECKPOINT_NAME).stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.05)
        waits.append(float(rng.uniform(0, 4)))
        time.sleep(waits[-1])
        process.send_signal(number)
        told, _ = process.communicate(timeout=120)
        codes.append(process.returncode)
        if number != signal.SIGKILL and process.returncode:
            assert f"stopped by {'SIGTERM' if number == signal.SIGTERM else 'Ctrl-C'} " in told
    expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
    assert codes[0] == expected, waits
    assert set(codes) <= {expected, 0}, waits  # after two long waits it may have come to its end
    told, _ = (process := start(out)).communicate(timeout=300)
    assert process.returncode == 0, told
    assert_same_run(out, unbroken)
    assert_same_tensors(
        load_checkpoint(out / CHECKPOINT_NAME).before, load_checkpoint(unbroken / CHECKPOINT_NAME).before
    )
