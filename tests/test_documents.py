from pathlib import Path

import pytest

from training.data.doctor.codes import CODES
from training.data.doctor.findings import REPAIRED_CODES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_doctor_is_documented(code: str) -> None:
    severity, title = CODES[code]
    repaired = "yes" if code in REPAIRED_CODES else ""
    assert f"| `{code}`: {title} | {severity.value} | {repaired} |" in (DOCS / "data.md").read_text(encoding="utf-8")
