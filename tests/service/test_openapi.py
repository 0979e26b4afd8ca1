from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from service.app import create_app
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import write_keys

IDS = {
    "segment", "detect", "classify", "predict", "overlay", "healthz", "readyz", "info", "metrics",
    "server_metadata", "server_live", "server_ready", "all_stats",
    *(f"{what}_{of}" for what in ("model", "version") for of in ("metadata", "ready", "config", "stats")),
    "infer", "version_infer",
    *(f"deepstack_{what}" for what in ("models", "detection", "custom", "scene", "status", "ping", "update")),
}  # fmt: skip


def list_operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]


@pytest.fixture(params=[False, True], ids=["open", "keys"])
def document(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    keys = write_keys(tmp_path / "keys", phone="uh_right") if request.param else None
    return create_app(Settings(keys=keys)).openapi()


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document, cls=OpenAPIV31SpecValidator)


def test_the_validator_sees_a_parameter_that_nobody_declares(document: dict[str, Any]) -> None:
    document["paths"]["/v2/models/{model}/infer"]["post"]["parameters"].clear()
    with pytest.raises(OpenAPIValidationError, match="model"):
        validate(document, cls=OpenAPIV31SpecValidator)


def test_every_parameter_of_a_path_is_declared_once(document: dict[str, Any]) -> None:
    for path, operation in list_operations(document):
        declared = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
        assert declared == re.findall(r"{(\w+)}", path), path


def test_operation_ids_are_short_and_stay(document: dict[str, Any]) -> None:
    found = [operation["operationId"] for _, operation in list_operations(document)]
    assert sorted(found) == sorted(IDS)


@pytest.mark.anyio
async def test_the_server_is_where_the_document_is(settings: Settings) -> None:
    async with connect(create_app(settings)) as client:
        response = await client.get("/openapi.json")
    (server,) = response.json()["servers"]
    assert httpx.URL("http://proxy/some/prefix/openapi.json").join(server["url"]) == "http://proxy/some/prefix/"
