"""What Docker Compose itself makes of the compose files: without any variable, and with every one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.outside import find_command

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
KEYS = ROOT / "docker/keys.compose.yml"
EVERY_VARIABLE = Path(__file__).parent / "every_variable.env"
NO_VARIABLE = Path(__file__).parent / "no_variable.env"

VALUES = dict(line.split("=", 1) for line in EVERY_VARIABLE.read_text().splitlines() if not line.startswith("#"))


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The plugin of docker where there is one, else the command of its own."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return [find_command("docker-compose")]


def render(command: list[str], env_file: Path, *files: Path) -> str:
    """The files as Compose understands them, every profile included, whatever this machine's environment says."""
    options = ["--env-file", str(env_file), *(f"--file={file}" for file in files), "--profile", "*"]
    done = subprocess.run(
        [*command, *options, "config"],
        cwd=ROOT,
        env={name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def by_default(command: list[str]) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(render(command, NO_VARIABLE, COMPOSE))["services"]
    return services


def published(service: dict[str, Any]) -> list[str]:
    """Where a service is published, as address:port:port of the container; the two Composes write it differently."""
    ports = service.get("ports", [])
    if all(isinstance(port, str) for port in ports):
        return [port.removesuffix("/tcp") for port in ports]
    return [f"{port['host_ip']}:{port['published']}:{port['target']}" for port in ports]


def test_without_variables_services_are_published_on_the_loopback(by_default: dict[str, dict[str, Any]]) -> None:
    assert {name: published(service) for name, service in by_default.items()} == {
        "unihead": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
        "training": [],
        "load": [],
    }


def test_without_variables_services_can_neither_write_to_their_image_nor_gain_rights(
    by_default: dict[str, dict[str, Any]],
) -> None:
    for service in by_default.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged"} & set(service)


def test_without_variables_the_service_has_its_limits_and_its_own_settings(
    by_default: dict[str, dict[str, Any]],
) -> None:
    service = by_default["unihead"]
    assert float(service["cpus"]) == 2
    assert service["mem_limit"] in {"1g", str(2**30)}
    assert {name: value for name, value in service["environment"].items() if value} == {
        "UNIHEAD_AUTH": "off",
        "UNIHEAD_ALLOWED_HOSTS": "localhost",
        "UNIHEAD_METRICS_PORT": "9000",
    }


def test_the_file_of_every_variable_has_every_variable_that_is_filled_in() -> None:
    filled_in = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text() + KEYS.read_text()))
    assert set(VALUES) ^ filled_in == set()


def test_every_variable_that_is_filled_in_reaches_its_place(command: list[str]) -> None:
    with_all = render(command, EVERY_VARIABLE, COMPOSE, KEYS)
    with_none = render(command, NO_VARIABLE, COMPOSE, KEYS)
    assert [value for value in VALUES.values() if value not in with_all or value in with_none] == []


def test_every_variable_that_is_handed_on_reaches_its_container(command: list[str], tmp_path: Path) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    handed_on = {
        name: {entry: f"the {entry}" for entry in service.get("environment", []) if "=" not in entry}
        for name, service in services.items()
    }
    env_file = tmp_path / "handed_on.env"
    env_file.write_text("".join(f"{key}={value}\n" for one in handed_on.values() for key, value in one.items()))
    rendered = yaml.safe_load(render(command, env_file, COMPOSE))["services"]
    for name, expected in handed_on.items():
        assert expected.items() <= rendered[name].get("environment", {}).items()


def test_the_file_with_keys_asks_for_keys(command: list[str]) -> None:
    config = yaml.safe_load(render(command, NO_VARIABLE, COMPOSE, KEYS))
    service = config["services"]["unihead"]
    (secret,) = service["secrets"]
    assert service["environment"]["UNIHEAD_AUTH"] == "keys"
    assert service["environment"]["UNIHEAD_KEYS"] == f"/run/secrets/{secret['source']}"
    assert config["secrets"][secret["source"]]["file"] == str(ROOT / "unihead.keys")
