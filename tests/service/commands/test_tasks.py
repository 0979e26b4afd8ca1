"""Commands ask a model for the tasks that it has, unless they are told which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main as serve
from service.client import Client, TaskNotServed
from service.commands.predict import main
from service.commands.spawn import spawn_service
from service.engine.contract import MODEL_TASKS, ModelTask
from tests.service.clients import PICTURE
from tests.service.subsets import fields_of


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_command_asks_for_what_the_model_has(
    model_of_tasks: Path, tasks: tuple[ModelTask, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PICTURE)
    out, table = tmp_path / "out", tmp_path / "table.csv"
    words: list[str | Path] = [
        photo,
        "--model",
        model_of_tasks,
        "--out",
        out,
        "--overlay",
        "--csv",
        table,
        "--json",
        "--quiet",
    ]
    code, said, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert set(json.loads(said)) == {"file", *fields_of(tasks)}
    assert len(list((out / "overlays").rglob("*.jpg"))) == 1
    kinds = {"segment": "segment", "detect": "detection", "classify": "class"}
    rows = {line.split(",")[1] for line in table.read_text().splitlines()[1:]}
    assert rows == {"picture", *(kinds[task] for task in tasks)}
    code, said, _ = run(capsys, photo, "--model", model_of_tasks)
    assert (code, said.count(" | ")) == (0, len(tasks) - 1)
    for task in MODEL_TASKS:
        code, said, err = run(capsys, photo, "--model", model_of_tasks, "--tasks", task, "--json", "--quiet")
        if task in tasks:
            assert (code, set(json.loads(said))) == (0, {"file", *fields_of((task,))})
        else:
            assert (code, said) == (2, "")
            assert err.startswith(f"unihead-predict: this model does not serve {task}; it serves {', '.join(tasks)}")


@pytest.fixture(scope="module")
def boxes_only(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("boxes") / "model.onnx", ("detect",))


@pytest.mark.slow
def test_the_command_asks_for_what_a_service_has(
    boxes_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.jpg", tmp_path / "out"
    photo.write_bytes(PICTURE)
    with spawn_service(["--model", str(boxes_only), "--threads", "1", "--log-level", "error"]) as service:
        code, said, err = run(capsys, photo, "--url", service.url, "--out", out, "--overlay", "--json", "--quiet")
        assert (code, err) == (0, "")
        assert set(json.loads(said)) == {"file", *fields_of(("detect",))}
        assert len(list((out / "overlays").rglob("*.jpg"))) == 1
        code, said, err = run(capsys, photo, "--url", service.url, "--tasks", "detect,classify")
        assert (code, said) == (2, "")
        assert err == "unihead-predict: this model does not serve classify; it serves detect (`GET /info`)\n"
        with Client(service.url) as client:
            assert client.detect(PICTURE).detections
            with pytest.raises(TaskNotServed):
                client.predict(PICTURE, tasks=("detect", "segment"))


@pytest.mark.slow
def test_selftest_and_bench_ask_for_what_the_model_has(boxes_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["selftest"], ["bench", "--seconds", "0.2", "--concurrency", "1", "--json"]):
        with pytest.raises(SystemExit) as stop:
            serve([*words, "--model", str(boxes_only)])
        out, err = capsys.readouterr()
        assert (stop.value.code, err) == (0, "")
    assert json.loads(out)["http"][0]["failed"] == 0
