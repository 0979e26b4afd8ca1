from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

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
                        },
                    }
                },
            },
        }
    },
}


def container(name: str) -> dict[str, Any]:
    spec = MANIFESTS[name]["spec"]
    pod = spec["predictor"] if name == "inference-service" else spec["template"]["spec"]
    (one,) = pod["containers"]
    found: dict[str, Any] = one
    return found


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
def test_what_is_set_are_settings_of_the_service_and_ports_are_those(name: str) -> None:
    values = {entry["name"]: entry["value"] for entry in container(name)["env"]}
    settings = Settings.model_validate({key.removeprefix(ENV_PREFIX).lower(): value for key, value in values.items()})
    assert {key.removeprefix(ENV_PREFIX).lower() for key in values} <= set(Settings.model_fields)
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    if name == "deployment":
        assert ports == {"http": settings.port, "metrics": settings.metrics_port}
    else:
        assert ports == {"http1": settings.port}


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
