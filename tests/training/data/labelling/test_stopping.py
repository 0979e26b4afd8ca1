"""Runs that are stopped at any moment, and go on."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.checkout import ROOT
from tests.training.data.labelling.make_teachers import (
    DETECTOR,
    FLOAT,
    SHARES,
    write_boxes,
    write_toml,
)
from tests.training.data.labelling.running import hash_all, label


def write_slow(path: Path) -> Path:
    """Write a detector like `write_boxes` that takes its time."""
    write_boxes(path, SHARES)
    model = onnx.load(path)
    size = 400
    constant = helper.make_tensor("square", FLOAT, [size, size], np.full(size * size, 1e-3, dtype=np.float32))
    model.graph.initializer.append(constant)
    # Depends on the picture, so that it cannot be computed when the file is loaded.
    nodes = [helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["square", "most"], ["step0"]))
    nodes += [helper.make_node("MatMul", [f"step{n}", "square"], [f"step{n + 1}"]) for n in range(12)]
    nodes += [
        helper.make_node("ReduceMin", ["step12"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nil"], ["nothing"]),
        helper.make_node("Add", ["fixed", "nothing"], ["boxes"]),
    ]
    model.graph.initializer.append(helper.make_tensor("nil", FLOAT, [], [0.0]))
    kept = [node for node in model.graph.node if node.output[0] != "boxes"]
    del model.graph.node[:]
    model.graph.node.extend([*kept, *nodes])
    onnx.save(model, path)
    write_toml(path, output=DETECTOR)
    return path


def start(out: Path, pictures: Path, *teachers: Path) -> subprocess.Popen[str]:
    words = [word for teacher in teachers for word in ("--teacher", str(teacher))]
    # Without torch, which labelling does not need.
    code = "import sys; sys.modules['torch'] = None; from training.data.cli import main; main()"
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"
    command = [sys.executable, "-c", code, "label", *words, "--pictures", str(pictures), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def count_answers(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob(".answers/*/answers.jsonl"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, many: Path, masker: Path, number: signal.Signals
) -> None:
    slow, whole, out = write_slow(tmp_path / "slow.onnx"), tmp_path / "whole", tmp_path / "out"
    assert label(whole, many, slow, masker) == 0
    stopped = start(out, many, slow, masker)
    deadline = time.monotonic() + 60
    while count_answers(out) < 8:
        assert stopped.poll() is None, stopped.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    stopped.send_signal(number)
    errors = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == (-number if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or "stopped; the same command goes on where it was" in errors
    before = count_answers(out)
    assert 8 <= before < 48
    assert not (out / "data.toml").exists()
    begun = {path: path.read_bytes() for path in out.glob(".answers/*/answers.jsonl")}
    assert label(out, many, slow, masker) == 0
    assert hash_all(out) == hash_all(whole)
    for path, text in begun.items():  # what was whole was not asked again
        assert path.read_bytes().startswith(text[: text.rfind(b"\n") + 1])
    assert count_answers(out) == 48


def test_a_line_that_is_cut_anywhere_is_written_anew(tmp_path: Path, pictures: Path, detector: Path) -> None:
    out = tmp_path / "out"
    assert label(out, pictures, detector) == 0
    wanted = hash_all(out)
    (journal,) = out.glob(".answers/*/answers.jsonl")
    text = journal.read_bytes()
    lines = sorted(text.splitlines())
    for left in (
        *(text[:length] for length in (*range(0, len(text), 97), len(text) - 1)),
        text[:-40] + b"\0" * 39 + b"\n",
    ):
        journal.write_bytes(left)
        assert label(out, pictures, detector, more=("--jobs", "1")) == 0
        assert sorted(journal.read_bytes().splitlines()) == lines
        assert hash_all(out) == wanted


def test_a_kill_while_the_source_is_written_is_made_good(
    tmp_path: Path, pictures: Path, detector: Path, masker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert label(whole, pictures, detector, masker) == 0
    replace = Path.replace
    for most in itertools.count():
        calls = itertools.count()

        def replace_some(path: Path, target: Path, most: int = most, calls: "itertools.count[int]" = calls) -> Path:
            if next(calls) >= most:
                raise KeyboardInterrupt
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", replace_some)
        if label(out, pictures, detector, masker) == 0:
            break
    assert most > 4
    assert hash_all(out) == hash_all(whole)


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path, many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow, out = write_slow(tmp_path / "slow.onnx"), tmp_path / "out"
    first = start(out, many, slow)
    while count_answers(out) < 1:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.005)
    assert label(out, many, slow) == 2
    assert f"{out}: another run is writing there" in capsys.readouterr().err
    first.kill()
    first.communicate()
