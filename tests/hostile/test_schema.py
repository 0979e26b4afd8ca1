"""Requests made up from the OpenAPI document: none is answered with a fault of ours, each as the document says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CheckContext
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.commands.spawn import Spawned

pytestmark = pytest.mark.slow


def refuses_with_a_reason(_: CheckContext, response: schemathesis.Response, __: schemathesis.Case[Any]) -> None:
    """A deadline of a millisecond, which may be asked for, is a 503; nothing else of the kind may happen."""
    fault = response.status_code >= 500 and response.status_code != 503
    assert not fault, response.text


CHECKS = [refuses_with_a_reason, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=[pytest.mark.full, pytest.mark.timeout(1800)])])
def test_the_service_does_what_its_document_says(served: Spawned, examples: int) -> None:
    asked = []
    schema = schemathesis.openapi.from_url(f"http://{served.host}:{served.port}/openapi.json")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        ask()
        asked.append(operation.label)
    assert {"POST /predict", "POST /v2/models/{model}/infer", "GET /info"} <= set(asked)
