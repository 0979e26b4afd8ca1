from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main
from tests.service.fakes import make_contract


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_shipped_service_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "selftest")
    assert (code, err) == (0, "")
    assert [line[:4] for line in out.splitlines()] == ["ok  "] * 5


@pytest.mark.parametrize(
    ("name", "held", "sentence"),
    [("none", 0, "cannot be read"), ("without answers", 1, "carries no answers about the golden pictures")],
)
def test_what_does_not_hold_is_told(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    write_tiny_model: Callable[..., Path],
    name: str,
    held: int,
    sentence: str,
) -> None:
    model = tmp_path / "model.onnx"
    if name != "none":
        write_tiny_model(model, make_contract())
    code, out, err = run(capsys, "selftest", "--model", str(model))
    assert (code, len(out.splitlines())) == (1, held)
    assert sentence in err
    assert f"{held} of 5 checks held" in err


def test_a_wrong_variable_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIHEAD_THREADS", "many")
    code, out, err = run(capsys, "selftest")
    assert (code, out) == (1, "")
    assert err.startswith("UNIHEAD_THREADS is 'many': ")
