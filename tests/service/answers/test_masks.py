"""One mask, five forms: each says the same about every pixel, and all of them cost one pass."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.service.fakes import FakeSession, encode, make_picture

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools 2.0.11 with numpy 2
]
PICTURE = encode(make_picture(61, 47, seed=3), "JPEG")


async def ask(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.post(path, content=PICTURE)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_png_raw_and_run_lengths_say_the_same_about_every_pixel(client: httpx.AsyncClient) -> None:
    png, raw, rle = [(await ask(client, f"/segment?mask={form}"))["mask"] for form in ("png", "raw", "rle")]
    class_ids = np.asarray(Image.open(io.BytesIO(base64.b64decode(png["data"]))))
    assert class_ids.any()
    assert (raw["dtype"], raw["size"], rle["size"]) == ("uint8", [47, 61], [47, 61])
    pixels = np.frombuffer(base64.b64decode(raw["data"]), dtype=np.uint8).reshape(raw["size"])
    np.testing.assert_array_equal(pixels, class_ids)
    assert [segment["label_id"] for segment in rle["segments"]] == np.unique(class_ids).tolist()
    for segment in rle["segments"]:
        decoded = coco.decode({"size": rle["size"], "counts": segment["counts"].encode()})
        np.testing.assert_array_equal(decoded, class_ids == segment["label_id"])


async def test_polygons_are_rings_of_whole_pixels(client: httpx.AsyncClient) -> None:
    mask = (await ask(client, "/segment?mask=polygons"))["mask"]
    assert (mask["encoding"], mask["size"]) == ("polygons", [47, 61])
    for segment in mask["segments"]:
        for polygon in segment["polygons"]:
            for ring in polygon:
                xs, ys = ring[::2], ring[1::2]
                assert len(xs) == len(ys) >= 4
                assert 0 <= min(xs) <= max(xs) <= 61
                assert 0 <= min(ys) <= max(ys) <= 47


async def test_without_a_mask_the_shares_stay(client: httpx.AsyncClient) -> None:
    with_mask, without = await ask(client, "/segment"), await ask(client, "/segment?mask=none")
    assert "mask" not in without
    assert without["segments"] == with_mask["segments"]
    assert "mask" not in await ask(client, "/predict?mask=none")
    assert "mask" not in await ask(client, "/predict?tasks=detect&mask=rle")


async def test_all_forms_of_one_picture_cost_one_pass(client: httpx.AsyncClient, session: FakeSession) -> None:
    warm = session.passes
    for form in ("png", "rle", "polygons", "raw", "none"):
        await ask(client, f"/segment?mask={form}")
        await ask(client, f"/predict?mask={form}")
    assert session.passes == warm + 1


async def test_where_a_png_is_accepted_it_is_the_whole_answer(client: httpx.AsyncClient) -> None:
    response = await client.post("/segment?mask=rle", content=PICTURE, headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (61, 47)
