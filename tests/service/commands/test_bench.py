from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.cli import main
from service.commands.spawn import spawn_service
from tests.service.fakes import GOLDEN


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_it_measures_parts_limit_and_http(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    words = ["--model", str(tiny_model), "--threads", "1", "--seconds", "0.3", "--concurrency", "1,3", "--json"]
    code, out, err = run(capsys, "bench", *words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert set(result["alone_ms"]) == {"decode", "preprocess", "forward", "postprocess", "encode", "total"}
    assert all(0 < ms <= result["alone_ms"]["total"] for ms in result["alone_ms"].values())
    assert result["bare"]["per_second"] > 0
    assert [row["concurrency"] for row in result["http"]] == [1, 3]
    for row in result["http"]:
        assert row["failed"] == 0
        assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    code, out, _ = run(capsys, "bench", "--model", str(tiny_model), "--seconds", "0.1", "--concurrency", "2")
    assert code == 0
    assert "pictures/s" in out
    assert "p99 ms" in out


@pytest.mark.slow
def test_a_service_that_runs_already_is_measured_alone(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    with spawn_service(["--model", str(tiny_model), "--log-level", "error"]) as service:
        url = f"http://{service.host}:{service.port}"
        code, out, _ = run(capsys, "bench", "--url", url, "--seconds", "0.2", "--concurrency", "2", "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) == {"pictures", "http"}
    assert result["http"][0]["per_second"] > 0
    code, _, err = run(capsys, "bench", "--url", url, "--seconds", "0.2", "--concurrency", "1")
    assert (code, err.count("\n")) == (1, 1)
    assert url in err


@pytest.mark.parametrize("url", ["localhost:8000", "https://x", "http://", "http://x/predict"])
def test_an_address_that_is_none_is_named(capsys: pytest.CaptureFixture[str], url: str) -> None:
    code, _, err = run(capsys, "bench", "--url", url)
    assert (code, "--url" in err) == (2, True)


def test_a_folder_without_pictures_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "bench", "--pictures", str(tmp_path))
    assert (code, err) == (2, f"{tmp_path} has no JPEG, PNG or WebP picture\n")


def test_a_model_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    code, _, err = run(capsys, "bench", "--model", str(tmp_path / "text.onnx"), "--pictures", str(GOLDEN))
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("numbers", ["0", "1,x", ""])
def test_a_concurrency_that_is_none_is_named(capsys: pytest.CaptureFixture[str], numbers: str) -> None:
    code, _, err = run(capsys, "bench", "--concurrency", numbers)
    assert (code, "--concurrency" in err) == (2, True)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_time_in_which_nothing_can_be_measured_is_named(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    code, _, err = run(capsys, "bench", f"--seconds={seconds}")
    assert (code, "--seconds" in err) == (2, True)
    assert "Traceback" not in err


def test_a_wrong_variable_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIHEAD_THREADS", "many")
    code, out, err = run(capsys, "bench")
    assert (code, out) == (1, "")
    assert err.startswith("UNIHEAD_THREADS is 'many': ")
