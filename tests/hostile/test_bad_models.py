"""A model file is code: a wrong one ends the start in one sentence, leaves the old model alone, and crashes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from service.cli import main
from service.server.server import GracefulServer
from tests.attacks.processes import ROOT, Running, start
from tests.outside import choose_size
from tests.service.bad_models import BAD_AT_START, BAD_MODELS, write_model
from tests.service.fakes import encode, make_picture

PICTURE = encode(make_picture())


@pytest.mark.parametrize("kind", BAD_AT_START)
def test_a_bad_file_ends_the_start_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    def serve(*_: object, **__: object) -> None:
        pytest.fail("it serves")

    monkeypatch.setattr(GracefulServer, "serve", serve)
    monkeypatch.chdir(tmp_path)  # where a reference to another file would be followed from
    harm, sentence = BAD_MODELS[kind]
    harm(model := write_model(tmp_path / "model.onnx", "old"))
    with pytest.raises(SystemExit) as stop:
        main(["--port", "0", "--threads", "1", "--model", str(model)])
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"unihead-serve: {model}: ")
    assert sentence in line


FLIP = """
import json, logging, random, sys
from pathlib import Path
from service.errors import ContractError
from service.rollout.loading import load_live
from service.settings import Settings

good, target, mutants, sha256 = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] or None
chance, outcomes = random.Random(0), []
for _ in range(mutants):
    bytes_ = bytearray(good)
    for _ in range(chance.choice((1, 1, 8))):
        bytes_[chance.randrange(len(bytes_))] ^= 1 << chance.randrange(8)
    target.write_bytes(bytes_)
    try:
        load_live(Settings(model=target, threads=1, model_sha256=sha256), must_carry_answers=True)
        outcomes.append("taken")
    except ContractError:
        outcomes.append("refused")
print(json.dumps(outcomes))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutants", [100, pytest.param(choose_size(3000, 1000), marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("pinned", [False, True])
def test_flipped_bits_crash_nothing_and_pass_no_pin(tmp_path: Path, mutants: int, pinned: bool) -> None:
    good = write_model(tmp_path / "good.onnx", "good")
    sha256 = "ab" * 32 if pinned else ""
    words = [sys.executable, "-c", FLIP, str(good), str(tmp_path / "bad.onnx"), str(mutants), sha256]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # a crash would be a negative number
    outcomes = Counter(json.loads(done.stdout))
    assert outcomes.total() == mutants
    # Without a pin a bit may flip where the answers about the shipped pictures do not depend on it.
    assert outcomes["refused"] == mutants if pinned else outcomes["refused"] > 0.7 * mutants


def ask(service: Running, stop: threading.Event, seen: Counter[tuple[int, str]]) -> None:
    while not stop.is_set():
        status, content = service.ask("/classify", PICTURE, {"Cache-Control": "no-cache"})
        seen[status, json.loads(content).get("model", {}).get("version", "none")] += 1


@pytest.mark.slow
def test_a_storm_of_wishes_to_reload_is_a_few_reloads_and_no_failure(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", "old")
    with start(tmp_path / "log", "--model", str(model)) as service:
        service.wait_until_ready()
        stop, seen = threading.Event(), Counter[tuple[int, str]]()
        thread = threading.Thread(target=ask, args=(service, stop, seen))
        thread.start()
        try:
            write_model(model, "new")
            for _ in range(100):
                os.kill(service.process.pid, signal.SIGHUP)
                time.sleep(0.001)
            deadline = time.monotonic() + 30
            while not seen[200, "new"]:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)
            time.sleep(1)
            last = json.loads(service.ask("/info")[1])["last_reload"]
        finally:
            stop.set()
            thread.join()
        assert set(seen) == {(200, "old"), (200, "new")}
        assert 1 <= last["number"] < 20
        assert {line["level"] for line in service.read_log()} == {"info"}
