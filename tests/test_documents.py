from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from training.data.doctor.codes import CODES
from training.data.doctor.findings import REPAIRED_CODES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_doctor_is_documented(code: str) -> None:
    severity, title = CODES[code]
    repaired = "yes" if code in REPAIRED_CODES else ""
    assert f"| `{code}`: {title} | {severity.value} | {repaired} |" in (DOCS / "data.md").read_text(encoding="utf-8")


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    assert len(names) > 15
    assert {name for name in names if name not in text} == set()
