"""`unihead-train chain`: segments one after another, each from the weights of the one before."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.commands.invoking import assert_one_sentence, invoke
from training.checkpoint import load_checkpoint
from training.files import hash_file

CHAIN = """
preset = "tiny"
data = "$SETS"
weights = "kept"

[[segments]]
name = "masks"
stage = "segmentation"
settings = ["segmentation.epochs=1", "segmentation.learning_rate=1e-4"]
hours = 0.5

[[segments]]
name = "boxes"
stage = "detection"
through = "classification"
settings = [
    "detection.epochs=1", "detection.ewc.strength={}", "classification.epochs=1", "classification.ewc.strength={}"
]
hours = 1
"""


def write_chain(folder: Path, text: str = CHAIN) -> Path:
    (folder / "chain.toml").write_text(text)
    return folder / "chain.toml"


def test_a_chain_is_trained_segment_by_segment_and_says_where_it_stands(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETS", str(tiny_sets))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file, out = write_chain(tmp_path), tmp_path / "out"
    listed = invoke("chain", file, "--out", out, "--list")
    assert listed.exit_code == 0, listed.output
    assert "1.5 hours are left" in listed.output
    assert listed.output.count("to do") == 2
    early = invoke("chain", file, "--out", out, "--only", "boxes")
    assert_one_sentence(early, "boxes starts from", "masks.pt, which is not there yet")

    done = invoke("chain", file, "--out", out, "--only", "masks", "--device", "cpu")
    assert done.exit_code == 0, done.output
    first = load_checkpoint(tmp_path / "kept" / "masks.pt")
    assert list(first.learned) == ["segmentation"]
    assert first.parsed_config().stages[0].learning_rate == 1e-4
    assert "1 hours are left" in invoke("chain", file, "--out", out, "--list").output

    # As on another machine: of the first segment only its weights are there.
    rest = invoke("chain", file, "--out", tmp_path / "elsewhere", "--device", "cpu")
    assert rest.exit_code == 0, rest.output
    last = load_checkpoint(tmp_path / "kept" / "boxes.pt")
    assert list(last.learned) == ["segmentation", "detection", "classification"]
    assert last.origin_sha256 == hash_file(tmp_path / "kept" / "masks.pt")
    before = (tmp_path / "kept" / "boxes.pt").stat().st_mtime_ns
    assert "0 hours are left" in invoke("chain", file, "--out", tmp_path / "elsewhere").output
    assert (tmp_path / "kept" / "boxes.pt").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["boxes"]


def test_a_segment_that_is_stopped_by_a_signal_to_the_chain_goes_on(
    tiny_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETS", str(tiny_sets))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = write_chain(tmp_path, CHAIN.replace("segmentation.epochs=1", "segmentation.epochs=16"))
    words = ["chain", str(file), "--only", "masks", "--device", "cpu", "--out", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-m", "training", *words], stdout=subprocess.PIPE) as process:
        metrics = tmp_path / "out" / "masks" / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert not (tmp_path / "kept").exists()
    listed = invoke(*words, "--list").output
    assert (found := re.search(r"under way: (\d+) of 16 epochs", listed)), listed
    assert 0 < int(found[1]) < 16
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines() if '"kind": "epoch"' in line]
    assert epochs == list(range(1, 17))
    assert list(load_checkpoint(tmp_path / "kept" / "masks.pt").learned) == ["segmentation"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHAIN, ("'$SETS' names a variable of the environment that is not set",)),
        (CHAIN.replace('"boxes"', '"masks"'), ("segments must have names of their own",)),
        (CHAIN.replace('"masks"', '"../masks"', 1), ("name",)),
        (CHAIN.replace("hours = 1\n", "hours = 0\n"), ("hours",)),
        ("preset = ", ("chain.toml",)),
    ],
)
def test_a_chain_that_cannot_be_understood_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("SETS", raising=False)
    assert_one_sentence(invoke("chain", write_chain(tmp_path, text), "--out", tmp_path / "out"), *words)


def test_a_segment_that_there_is_none_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETS", "sets")
    found = invoke("chain", write_chain(tmp_path), "--out", tmp_path / "out", "--only", "polish")
    assert_one_sentence(found, "has no segment 'polish'; it has masks, boxes")
    assert_one_sentence(invoke("chain", tmp_path / "none.toml", "--out", tmp_path), "No such file")
