"""The shipped model answers every picture of the real mini sets."""

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.outside import find_outside

pytestmark = pytest.mark.full


@pytest.fixture
def pictures() -> list[Path]:
    root = find_outside("UNIHEAD_DATA", "data")
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})


@pytest.mark.anyio
async def test_every_picture_gets_three_answers_and_a_mask_of_its_size(pictures: list[Path]) -> None:
    assert len(pictures) >= 900
    app = create_app(Settings())
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path in pictures:
            body = path.read_bytes()
            answer = await http.post("/predict", content=body)
            assert answer.status_code == 200, (path, answer.text)
            assert {"segments", "mask", "detections", "classes"} <= answer.json().keys()
            png = await http.post("/segment", content=body, headers={"Accept": "image/png"})
            with Image.open(io.BytesIO(png.content)) as mask, Image.open(path) as picture:
                assert mask.mode == "P"
                assert mask.size == picture.size
