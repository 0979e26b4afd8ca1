from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.app import create_app
from service.settings import ENV_PREFIX, Settings

FOLDER = Path(__file__).parents[2] / "docker/kubernetes"
MANIFESTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.stem != "kustomization"
}
CUSTOM = {"monitor", "inference-service"}
NAME = {"app.kubernetes.io/name": "unihead"}

# What these two kinds require, after their published resource definitions; kubernetes-validate does not know them.
_OBJECT = {"type": "object"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "monitor": {
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": "ServiceMonitor"},
            "spec": {
                "required": ["selector", "endpoints"],
                "additionalProperties": False,
                "properties": {
                    "selector": _OBJECT,
                    "endpoints": {
                        "type": "array",
                        "items": {
                            "additionalProperties": False,
                            "properties": {
                                "port": {"type": "string"},
                                "path": {"type": "string"},
                                "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                            },
                        },
                    },
                },
            },
        }
    },
    "inference-service": {
        "properties": {
            "apiVersion": {"const": "serving.kserve.io/v1beta1"},
            "kind": {"const": "InferenceService"},
            "spec": {
                "required": ["predictor"],
                "properties": {
                    "predictor": {
                        "required": ["containers"],
                        "additionalProperties": False,
                        "properties": {
                            "minReplicas": {"type": "integer"},
                            "maxReplicas": {"type": "integer"},
                            "containers": {"type": "array", "minItems": 1, "maxItems": 1},
                            "volumes": {"type": "array"},
                            "enableServiceLinks": {"type": "boolean"},
                        },
                    }
                },
            },
        }
    },
}


def pod_of(name: str) -> dict[str, Any]:
    spec = MANIFESTS[name]["spec"]
    found: dict[str, Any] = spec["predictor"] if name == "inference-service" else spec["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (one,) = pod_of(name)["containers"]
    found: dict[str, Any] = one
    return found


def settings_of(name: str) -> Settings:
    """Settings as the container gets them; the image listens on all addresses."""
    values = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    return Settings.model_validate({key.removeprefix(ENV_PREFIX).lower(): value for key, value in values.items()})


@pytest.mark.parametrize("name", sorted(set(MANIFESTS) - CUSTOM))
def test_kubernetes_knows_every_field(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], "1.37", strict=True)


@pytest.mark.parametrize("name", sorted(CUSTOM))
def test_custom_resources_fit_what_their_definitions_require(name: str) -> None:
    jsonschema.validate(MANIFESTS[name], SCHEMAS[name])


@pytest.mark.parametrize("name", ["deployment", "inference-service"])
def test_containers_can_do_no_more_than_answer(name: str) -> None:
    rights = container(name)["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    pod = rights | MANIFESTS[name]["spec"].get("template", {}).get("spec", {}).get("securityContext", {})
    assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 10001)
    assert container(name)["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", ["deployment", "inference-service"])
def test_no_service_beside_it_sets_variables_of_its_own(name: str) -> None:
    assert pod_of(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ["deployment", "inference-service"])
def test_what_is_set_are_settings_of_the_service_and_ports_are_those(name: str) -> None:
    settings = settings_of(name)
    names = {entry["name"] for entry in container(name)["env"]}
    assert {key.removeprefix(ENV_PREFIX).lower() for key in names} <= set(Settings.model_fields)
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    if name == "deployment":
        assert ports == {"http": settings.port, "metrics": settings.metrics_port}
    else:
        assert ports == {"http1": settings.port}


@pytest.mark.parametrize("name", ["deployment", "inference-service"])
def test_keys_are_asked_for_and_come_from_a_secret(name: str) -> None:
    keys = settings_of(name).keys
    assert keys is not None
    (mount,) = [mount for mount in container(name)["volumeMounts"] if Path(mount["mountPath"]) == keys.parent]
    assert mount["readOnly"] is True
    assert "subPath" not in mount  # such a file never changes
    (volume,) = [volume for volume in pod_of(name)["volumes"] if volume["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "unihead-keys"
    documented = f"kubectl create secret generic unihead-keys --from-file={keys.name}="
    assert documented in (FOLDER.parents[1] / "docs/deploy.md").read_text()


def test_the_secret_can_be_read_by_the_service_and_not_by_others() -> None:
    pod = pod_of("deployment")
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize("name", ["deployment", "inference-service"])
def test_probes_ask_what_is_open_without_a_key(name: str) -> None:
    probes = [probe["httpGet"] for key, probe in container(name).items() if key.endswith("Probe")]
    assert probes
    routes = create_app(Settings()).state.routes
    assert [probe["path"] for probe in probes if not routes.is_open(probe["path"])] == []


def test_kserve_scrapes_the_port_that_needs_no_key() -> None:
    annotations = MANIFESTS["inference-service"]["metadata"]["annotations"]
    assert annotations["prometheus.kserve.io/port"] == str(settings_of("inference-service").metrics_port)


def test_everything_selects_the_same_pods() -> None:
    template = MANIFESTS["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert template == NAME
    assert MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"] == NAME
    assert MANIFESTS["service"]["spec"]["selector"] == NAME
    assert MANIFESTS["disruption"]["spec"]["selector"]["matchLabels"] == NAME
    assert MANIFESTS["network"]["spec"]["podSelector"]["matchLabels"] == NAME
    assert MANIFESTS["monitor"]["spec"]["selector"]["matchLabels"] == MANIFESTS["service"]["metadata"]["labels"]
    target = MANIFESTS["autoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["deployment"]["metadata"]["name"])


def test_the_names_of_ports_are_known_to_those_who_use_them() -> None:
    ports = {port["name"] for port in container("deployment")["ports"]}
    assert {port["targetPort"] for port in MANIFESTS["service"]["spec"]["ports"]} == ports
    served = {port["name"] for port in MANIFESTS["service"]["spec"]["ports"]}
    assert {one["port"] for one in MANIFESTS["monitor"]["spec"]["endpoints"]} <= served
    allowed = {port["port"] for rule in MANIFESTS["network"]["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == ports


def test_the_drain_outlasts_the_shutdown_of_the_service() -> None:
    spec = MANIFESTS["deployment"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= 5 + 20 + 5


def test_kustomize_names_files_that_exist() -> None:
    resources = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert set(resources) == {f"{name}.yaml" for name in set(MANIFESTS) - CUSTOM}
