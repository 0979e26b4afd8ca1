"""A real Ray with two replicas: what it answers, what a killed replica and an update cost, what Prometheus reads."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
import yaml

from service.api.keys import append_key, hash_key, make_key
from service.engine.golden import GOLDEN_PICTURES
from service.settings import ENV_PREFIX, Settings

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
serve = pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")

ROOT = Path(__file__).parents[2]
CAT = (GOLDEN_PICTURES / "chelsea.jpg").read_bytes()

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


@dataclass(slots=True)
class Cluster:
    """Where Ray answers pictures, and where its metrics are."""

    port: int
    metrics_port: int

    def ask(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        """The status of an answer; 0 where the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body, headers or {})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return 0
        else:
            return response.status
        finally:
            connection.close()


@dataclass(slots=True)
class Load:
    """Clients that never pause, each with pictures of its own."""

    cluster: Cluster
    clients: int = 4
    statuses: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more requests have ended."""
        wanted = len(self.statuses) + answers
        wait_until(lambda: len(self.statuses) >= wanted)

    def _run(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            self.statuses.append(self.cluster.ask("/predict", CAT + f"{number}-{turn}".encode()))
            turn += 1


def wait_until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def deploy(replicas: int, **environment: str) -> None:
    from service.ray_app import Arguments, app  # noqa: PLC0415 - needs Ray

    application = app(Arguments(threads=1))
    actor = {"num_cpus": 1, "runtime_env": {"env_vars": environment}}
    deployment = application._bound_deployment.options(num_replicas=replicas, ray_actor_options=actor)
    serve.run(deployment.bind(), name="unihead", route_prefix="/")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(free_port(), free_port())
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _metrics_export_port=cluster.metrics_port,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": cluster.port})
    deploy(2)
    yield cluster
    serve.shutdown()
    ray.shutdown()


def pids_of_replicas() -> list[int]:
    """Ray names its processes; asking it for them takes the dashboard."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes().startswith(b"ray::ServeReplica:unihead:"):
                found.append(int(file.parent.name))
    return found


def test_pictures_are_answered_by_the_same_app(cluster: Cluster) -> None:
    assert {cluster.ask(path, CAT) for path in ("/segment", "/detect", "/classify", "/predict")} == {200}
    assert cluster.ask("/predict", b"no picture") == 415
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/readyz") as response:
        assert response.status == 200


def test_prometheus_can_read_the_metrics_of_all_replicas(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics_port}/metrics") as response:
            lines = response.read().decode().splitlines()
        found = [line for line in lines if line.startswith("ray_unihead_ms_per_image_bucket{")]
        if found and any(line.startswith("ray_unihead_forward_passes_total{") for line in lines):
            assert any('stage="total"' in line and 'task="predict"' in line and 'le="50.0"' in line for line in found)
            return
        time.sleep(1)
    raise AssertionError("Ray's agent exports no metrics of ours")


def test_a_killed_replica_costs_no_request_but_those_it_held(cluster: Cluster) -> None:
    pids = pids_of_replicas()
    assert len(pids) == 2
    with Load(cluster) as load:
        load.wait_for_more(50)
        os.kill(pids[0], signal.SIGKILL)
        # Ray has noticed, and has started another.
        wait_until(lambda: pids[0] not in pids_of_replicas() and len(pids_of_replicas()) == 2)
        load.wait_for_more(100)
    counts = Counter(load.statuses)
    assert counts[200] > 100
    # A replica holds some of the four requests at once; those die with it, and nothing else does.
    assert len(load.statuses) - counts[200] <= load.clients
    assert len(pids_of_replicas()) == 2


def test_a_rolling_update_costs_no_request(cluster: Cluster) -> None:
    before = set(pids_of_replicas())
    with Load(cluster, clients=2) as load:
        load.wait_for_more(25)
        deploy(2)  # the same code under a new version: every replica is replaced
        wait_until(lambda: not before & set(pids_of_replicas()))
        load.wait_for_more(25)
    assert Counter(load.statuses).keys() == {200}
    assert len(load.statuses) > 50
    assert not before & set(pids_of_replicas())


def test_replicas_ask_for_keys_that_their_environment_names(cluster: Cluster, tmp_path: Path) -> None:
    key, keys = make_key(), tmp_path / "keys"
    append_key(keys, "phone", hash_key(key))
    deploy(1, UNIHEAD_KEYS=str(keys))
    right = {"Authorization": f"Bearer {key}"}
    assert cluster.ask("/predict", CAT, right) == 200
    assert {cluster.ask(path, CAT) for path in ("/predict", "/detect", "/info", "/nowhere")} == {401}
    assert cluster.ask("/predict", CAT, {"X-API-Key": f"{key}x"}) == 401
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/readyz") as response:
        assert response.status == 200


def test_the_config_file_deploys_what_is_tested_here() -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415 - needs Ray

    from service.ray_app import Arguments  # noqa: PLC0415 - needs Ray

    parsed = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "docker/ray/serve.yaml").read_text()))
    (application,) = parsed.applications
    assert application.import_path == "service.ray_app:app"
    Arguments.model_validate(application.args)
    assert [deployment.name for deployment in application.deployments] == ["unihead"]
    settings = application.runtime_env["env_vars"]
    assert "UNIHEAD_KEYS" in settings, "its proxy listens on all addresses"
    assert {name.removeprefix(ENV_PREFIX).lower() for name in settings} <= set(Settings.model_fields)
