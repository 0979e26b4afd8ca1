from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import InvalidSetting, Settings, describe_unknown_variables, read_settings


def test_defaults_listen_on_loopback_and_take_the_packaged_model() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.model.parts[-3:] == ("service", "models", "unihead.onnx")
    assert settings.max_body_bytes == 10_000_000


def test_the_environment_sets_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIHEAD_PORT", "8001")
    monkeypatch.setenv("UNIHEAD_MAX_BODY_BYTES", "77")
    settings = Settings(_cli_parse_args=["--port", "8002", "--no-docs"])
    assert (settings.port, settings.max_body_bytes, settings.docs) == (8002, 77, False)


@pytest.mark.parametrize("values", [{"port": 70_000}, {"threads": -1}, {"max_body_bytes": 0}, {"log_level": "loud"}])
def test_values_out_of_range_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="prot"):
        Settings.model_validate({"prot": 1})


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_mistyped_variables_are_noticed_and_other_peoples_are_not() -> None:
    environment = {"UNIHEAD_PROT": "1", "UNIHEAD_PORT": "1", "UNIHEAD_DATA": "x", "UNIHEAD_ZZZZ": "", "PATH": "x"}
    port, other = describe_unknown_variables(environment)
    assert port == "the environment sets UNIHEAD_PROT, which is no setting; did you mean UNIHEAD_PORT?"
    assert "UNIHEAD_ZZZZ" in other


def test_the_variable_of_those_who_ask_is_not_mistaken_for_the_key_file() -> None:
    (sentence,) = describe_unknown_variables({"UNIHEAD_KEY": "uh_secret"})
    assert sentence == "the environment sets UNIHEAD_KEY, which is no setting; did you mean UNIHEAD_KEYS?"


def test_threads_are_taken_from_the_cpus_unless_they_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.available_cpus", lambda: 7)
    assert Settings().cpu_threads == 7
    assert Settings(threads=3).cpu_threads == 3


def test_a_wrong_setting_is_named_by_flag_and_variable_where_there_is_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match=r"^--threads \(UNIHEAD_THREADS\) is -1: input should be greater than or "):
        read_settings(threads=-1)
    monkeypatch.setenv("UNIHEAD_THREADS", "many")
    with pytest.raises(InvalidSetting, match=r"^UNIHEAD_THREADS is 'many': input should be a valid integer, "):
        read_settings(model=None)
    with pytest.raises(InvalidSetting, match=r"^--threads \(UNIHEAD_THREADS\) is 'many': "):
        read_settings([])
    assert read_settings(threads=2).threads == 2


def test_settings_that_do_not_go_together_are_one_sentence() -> None:
    with pytest.raises(InvalidSetting, match=r"^auth is `keys`, and there is no key file"):
        read_settings(["--auth", "keys"])
    with pytest.raises(InvalidSetting, match=r"is '\*': '\*' is no origin; it must look like https://example.org"):
        read_settings(["--cors-origins", "*"])


def test_flags_left_out_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIHEAD_THREADS", "3")
    assert read_settings(model=Path("m.onnx"), threads=None).threads == 3
    assert read_settings(model=Path("m.onnx"), threads=None).model == Path("m.onnx")


@pytest.mark.parametrize(
    ("threads", "max_batch", "wide_threads", "workers"), [(1, 1, 1, 1), (3, 1, 3, 3), (8, 1, 4, 8), (2, 4, 2, 8)]
)
def test_a_pass_alone_has_four_threads_at_most_and_batches_need_workers(
    threads: int, max_batch: int, wide_threads: int, workers: int
) -> None:
    settings = Settings(threads=threads, max_batch=max_batch)
    assert (settings.wide_threads, settings.workers) == (wide_threads, workers)


def test_all_bodies_together_have_room_for_one() -> None:
    assert Settings(max_body_bytes=77, max_bodies_bytes=77).max_bodies_bytes == 77
    with pytest.raises(ValidationError, match="no body of that size could ever be taken"):
        Settings(max_body_bytes=77, max_bodies_bytes=76)
