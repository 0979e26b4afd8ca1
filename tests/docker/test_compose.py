import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk import environment_variables

from service.commands.bench import _parse
from service.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
KEYS = ROOT / "docker/keys.compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.mark.parametrize("file", [COMPOSE, KEYS], ids=lambda file: file.name)
def test_every_variable_has_a_default(file: Path) -> None:
    text = file.read_text()
    assert re.findall(r"\$\{?\w+[^}]*\}?", text) == re.findall(r"\$\{[A-Z_]+:-[^}]*\}", text)


def test_what_is_handed_on_are_settings_of_the_service_without_a_second_default() -> None:
    settings = {f"UNIHEAD_{name.upper()}" for name in Settings.model_fields}
    names = {entry for entry in SERVICES["unihead"]["environment"] if "=" not in entry}
    opentelemetry = {value for name, value in vars(environment_variables).items() if name.startswith("OTEL_")}
    assert {name.partition("=")[0] for name in SERVICES["unihead"]["environment"]} <= settings | opentelemetry
    assert set(SERVICES["unihead"]["environment"]) - names == {
        "UNIHEAD_METRICS_PORT=9000",
        "UNIHEAD_AUTH=off",
        "UNIHEAD_ALLOWED_HOSTS=${UNIHEAD_ALLOWED_HOSTS:-localhost}",
        "OTEL_RESOURCE_ATTRIBUTES=${TRACE_ATTRIBUTES:-}",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_services_can_neither_write_to_their_image_nor_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_cannot_take_the_whole_machine(name: str) -> None:
    assert SERVICES[name]["mem_limit"]
    assert SERVICES[name]["pids_limit"]
    assert "cpus" in SERVICES[name] or name == "training"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_only(name: str) -> None:
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+\}$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    mounts = [mount.split(":") for mount in SERVICES[name].get("volumes", []) if mount.startswith(".")]
    assert [mount for mount in mounts if not (ROOT / mount[0]).exists() or mount[2:] != ["ro"]] == []


def test_everybody_is_let_in_only_where_no_port_is_published_to_others() -> None:
    assert "UNIHEAD_AUTH=off" in SERVICES["unihead"]["environment"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["unihead"]["ports"])


def test_keys_are_a_secret_that_the_service_reads() -> None:
    over = yaml.safe_load(KEYS.read_text())
    set_to = dict(entry.split("=") for entry in over["services"]["unihead"]["environment"])
    (secret,) = over["services"]["unihead"]["secrets"]
    assert set_to == {"UNIHEAD_AUTH": "keys", "UNIHEAD_KEYS": f"/run/secrets/{secret}"}
    assert list(over["secrets"]) == [secret]
    assert "UNIHEAD_KEY" in SERVICES["load"]["environment"]


def test_the_file_for_keys_fits_over_the_other(tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose (Debian package of that name)")
    (tmp_path / "unihead.keys").touch()
    command = ["docker-compose", "-f", str(COMPOSE), "-f", str(KEYS), "config"]
    environment = {**os.environ, "UNIHEAD_KEYS_FILE": str(tmp_path / "unihead.keys")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    merged = yaml.safe_load(done.stdout)
    service = merged["services"]["unihead"]
    assert (service["environment"]["UNIHEAD_AUTH"], service["environment"]["UNIHEAD_KEYS"]) == (
        "keys", "/run/secrets/unihead_keys",
    )  # fmt: skip
    assert [secret["source"] for secret in service["secrets"]] == ["unihead_keys"]
    assert merged["secrets"]["unihead_keys"]["file"] == str(tmp_path / "unihead.keys")


def test_the_service_is_built_from_a_dockerfile_that_exists() -> None:
    for name in ("unihead", "training"):
        build = SERVICES[name]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_only_what_serves_starts_without_a_profile() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        "unihead", "prometheus", "grafana",
    }  # fmt: skip


def test_the_load_is_a_command_that_the_service_has() -> None:
    words = SERVICES["load"]["command"]
    assert words[:2] == ["unihead-serve", "bench"]
    assert _parse(words[2:]).url == "http://unihead:8000"


def test_prometheus_waits_until_the_service_is_healthy() -> None:
    assert SERVICES["prometheus"]["depends_on"] == {"unihead": {"condition": "service_healthy"}}
