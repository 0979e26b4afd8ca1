"""Fields of a form beside its pictures are what the same names are in the query, with the same checks."""

from __future__ import annotations

import httpx
import pytest

from tests.service.clients import PICTURE, ask, refuse
from tests.service.fakes import make_form

pytestmark = pytest.mark.anyio


async def test_fields_say_what_the_query_says(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(top_k=b"1", file=PICTURE)
    assert len((await ask(client, "/classify", body, Content_Type=content_type))["classes"]) == 1
    body, content_type = make_form(file=PICTURE, tasks=b"detect", score_threshold=b"0")
    answer = await ask(client, "/predict?max_detections=1", body, Content_Type=content_type)
    assert "classes" not in answer
    assert len(answer["detections"]) == 1
    body, content_type = make_form(file=PICTURE, mask=b"rle")
    assert (await ask(client, "/segment", body, Content_Type=content_type))["mask"]["encoding"] == "rle"


async def test_a_drawing_takes_them_too(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(file=PICTURE, format=b"png")
    drawn = await client.post("/overlay", content=body, headers={"Content-Type": content_type})
    assert drawn.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/classify", {"top_k": b"0"}, "form field 'top_k' is '0': input should be greater than or equal to 1"),
        ("/classify", {"top_k": b"1_0"}, "form field 'top_k' is '1_0'"),
        ("/classify", {"topk": b"1"}, "unknown form field 'topk'; this path knows top_k"),
        ("/classify?top_k=1", {"top_k": b"2"}, "'top_k' is given 2 times"),
        ("/detect", {"max_detections": b"5"}, "max_detections is 5; the model gives 4 at most"),
        ("/predict", {"tasks": b"count"}, "tasks has 'count'"),
        ("/detect", {"score_threshold": b"\xff"}, "form field 'score_threshold' is '\ufffd'"),
        ("/segment", {"": b""}, "unknown form field ''"),
    ],
)
async def test_they_are_refused_as_in_the_query(
    client: httpx.AsyncClient, path: str, fields: dict[str, bytes], words: str
) -> None:
    body, content_type = make_form(file=PICTURE, **fields)
    assert words in await refuse(client, path, body, 422, "invalid_parameter", Content_Type=content_type)


async def test_a_long_field_is_no_parameter_and_says_where_a_picture_goes(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(file=PICTURE, picture=PICTURE)
    detail = await refuse(client, "/detect", body, 400, "malformed_request", Content_Type=content_type)
    assert "a picture goes into a field named `file`" in detail
