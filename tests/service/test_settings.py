from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import InvalidSetting, Settings, read_settings


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


def test_an_address_in_the_place_of_a_port_is_that_of_a_service_of_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNIHEAD_PORT", "UNIHEAD_METRICS_PORT", "UNIHEAD_GRPC_PORT"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    settings = read_settings([])
    assert (settings.port, settings.metrics_port, settings.grpc_port) == (8000, None, None)
    assert read_settings(["--port", "8001"]).port == 8001


@pytest.mark.parametrize("port", ["tcp://", "tcp://10.0.0.1", "http://10.0.0.1:80", "10.0.0.1:80"])
def test_other_words_are_no_port(port: str) -> None:
    with pytest.raises(InvalidSetting, match="input should be a valid integer"):
        read_settings(["--port", port])


@pytest.mark.parametrize(("name", "word"), [("log_level", "INFO"), ("log_format", "Json"), ("golden", "WARN")])
def test_words_are_taken_in_capitals(monkeypatch: pytest.MonkeyPatch, name: str, word: str) -> None:
    monkeypatch.setenv(f"UNIHEAD_{name.upper()}", word)
    assert getattr(read_settings([]), name) == word.lower()
    monkeypatch.delenv(f"UNIHEAD_{name.upper()}")
    assert getattr(read_settings([f"--{name.replace('_', '-')}", word]), name) == word.lower()


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


def test_a_budget_that_is_set_has_room_for_a_body_and_its_picture() -> None:
    assert Settings(max_body_bytes=77, memory_bytes=4 * 77).memory_budget == 308
    with pytest.raises(ValidationError, match="one body may have 77"):
        Settings(max_body_bytes=77, memory_bytes=307)


@pytest.mark.parametrize(
    ("limit_mib", "cache_mib", "budget_mib"),
    [
        (None, 64, 640),  # no limit: resident memory stays below 1 GiB
        (1024, 64, 640),
        (4096, 64, 3712),
        (4096, 1024, 2752),
        (512, 64, 128),
        (256, 64, 64),  # too small a container gets a quarter, and whoever runs it finds out in the documents
    ],
)
def test_the_budget_follows_from_the_containers_limit(
    monkeypatch: pytest.MonkeyPatch, limit_mib: int | None, cache_mib: int, budget_mib: int
) -> None:
    limit = None if limit_mib is None else limit_mib * 2**20
    monkeypatch.setattr("service.settings.find_memory_limit", lambda: limit)
    assert Settings(cache_max_bytes=cache_mib * 2**20).memory_budget == budget_mib * 2**20
    assert Settings(memory_bytes=10**9).memory_budget == 10**9


def test_the_budget_has_room_for_a_body_however_small_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.find_memory_limit", lambda: 64 * 2**20)
    assert Settings().memory_budget == 4 * 10_000_000
