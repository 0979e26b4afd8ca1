from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.engine.engine import Engine
from service.settings import Settings
from tests.attacks.bombs import scan_bomb
from tests.service.clients import PICTURE, ask, connect, count, refuse
from tests.service.fakes import GOLDEN, FakeSession, encode, make_contract, make_form, make_picture

pytestmark = pytest.mark.anyio

STAGES = ["decode", "preprocess", "queue", "forward", "postprocess", "encode", "total"]
ROUTES = ["/segment", "/detect", "/classify", "/predict"]


async def test_detect_tells_boxes_in_pixels_of_the_original(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "/detect")
    assert list(answer) == ["model", "image", "detections", "timing_ms"]
    assert answer["model"] == {"name": "unihead", "version": "tiny-0123456789ab"}
    assert answer["image"] == {"width": 64, "height": 48}
    assert answer["detections"] == [  # the input is 32 pixels wide: twice the network's boxes, clipped to 48
        {"box": [8.0, 8.0, 40.0, 24.0], "label": "bicycle", "label_id": 1, "score": 0.9},
        {"box": [0.0, 0.0, 64.0, 48.0], "label": "person", "label_id": 0, "score": 0.6},
    ]


async def test_detect_obeys_its_parameters(client: httpx.AsyncClient) -> None:
    assert len((await ask(client, "/detect?score_threshold=0"))["detections"]) == 3
    assert len((await ask(client, "/detect?score_threshold=0&max_detections=1"))["detections"]) == 1
    assert (await ask(client, "/detect?score_threshold=1"))["detections"] == []


async def test_classify_is_sorted_and_cut(client: httpx.AsyncClient) -> None:
    green = encode(np.full((10, 10, 3), (90, 200, 20), dtype=np.uint8))
    classes = (await ask(client, "/classify", green))["classes"]
    assert [(item["label"], item["label_id"]) for item in classes] == [("green", 1), ("red", 0), ("blue", 2)]
    assert sum(item["probability"] for item in classes) == pytest.approx(1, abs=1e-5)
    assert [item["label"] for item in (await ask(client, "/classify?top_k=1", green))["classes"]] == ["green"]


async def test_segment_tells_shares_and_a_mask_of_the_original_size(client: httpx.AsyncClient) -> None:
    picture = np.zeros((30, 50, 3), dtype=np.uint8)
    picture[:, 25:, 0] = 255
    answer = await ask(client, "/segment", encode(picture))
    assert list(answer) == ["model", "image", "segments", "mask", "timing_ms"]
    assert {item["label"]: item["pixels"] for item in answer["segments"]} == {"background": 750, "cat": 750}
    assert [item["fraction"] for item in answer["segments"]] == [0.5, 0.5]
    assert answer["mask"]["encoding"] == "png"
    mask = Image.open(io.BytesIO(base64.b64decode(answer["mask"]["data"])))
    assert (mask.mode, mask.size) == ("P", (50, 30))
    np.testing.assert_array_equal(np.asarray(mask), picture[..., 0] // 255)


async def test_segment_answers_a_palette_png_where_it_is_preferred(client: httpx.AsyncClient) -> None:
    response = await client.post("/segment", content=PICTURE, headers={"Accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["vary"] == "Accept"
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (64, 48))
    told = await ask(client, "/segment", Accept="*/*")
    assert base64.b64decode(told["mask"]["data"]) == response.content


async def test_segment_answers_json_otherwise_and_varies_too(client: httpx.AsyncClient) -> None:
    response = await client.post("/segment", content=PICTURE, headers={"Accept": "image/png;q=0.1, */*"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"


async def test_predict_is_the_three_answers_in_one_pass(client: httpx.AsyncClient, session: FakeSession) -> None:
    warm = session.passes
    everything = await ask(client, "/predict")
    assert session.passes == warm + 1
    assert list(everything) == ["model", "image", "segments", "mask", "detections", "classes", "timing_ms"]
    for path in ("/segment", "/detect", "/classify"):
        one = await ask(client, path)
        del one["timing_ms"]
        assert one.items() <= everything.items()
    assert await count(client, "unihead_forward_passes_total") == 1.0 == session.passes - warm


@pytest.mark.parametrize(
    ("tasks", "parts"),
    [
        ("detect", {"detections"}),
        ("classify,segment", {"classes", "segments", "mask"}),
        ("detect,detect", {"detections"}),
        ("segment,%20classify", {"segments", "mask", "classes"}),
    ],
)
async def test_predict_holds_the_parts_asked_for(client: httpx.AsyncClient, tasks: str, parts: set[str]) -> None:
    assert set(await ask(client, f"/predict?tasks={tasks}")) == {"model", "image", "timing_ms"} | parts


async def test_a_part_with_nothing_in_it_is_an_empty_list(client: httpx.AsyncClient) -> None:
    assert (await ask(client, "/predict?tasks=detect&score_threshold=1"))["detections"] == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/predict?tasks=", "tasks has ''; known are segment, detect, classify"),
        ("/predict?tasks=detect,count", "tasks has 'count'"),
        ("/predict?tasks=detect,", "tasks has ''"),
        ("/predict?tasks=Detect", "tasks has 'Detect'"),
        ("/predict?tasks=detect&tasks=segment", "'tasks' is given 2 times"),
        ("/detect?treshold=0.5", "unknown query parameter 'treshold'; this path knows max_detections, score_threshold"),
        ("/segment?top_k=1", "unknown query parameter 'top_k'; this path knows mask"),
        ("/classify?score_threshold=0.5", "this path knows top_k"),
        ("/segment?mask=jpeg", "'mask' is 'jpeg': input should be 'png', 'rle', 'polygons', 'raw' or 'none'"),
        ("/detect?mask=rle", "unknown query parameter 'mask'"),
        ("/detect?score_threshold=1.1", "'score_threshold' is '1.1': input should be less than or equal to 1"),
        ("/detect?score_threshold=nan", "'score_threshold' is 'nan'"),
        ("/detect?score_threshold=", "'score_threshold' is ''"),
        ("/detect?score_threshold=high", "'score_threshold' is 'high'"),
        ("/detect?max_detections=0", "'max_detections' is '0'"),
        ("/detect?max_detections=5", "max_detections is 5; the model gives 4 at most"),
        ("/detect?max_detections=1.5", "'max_detections' is '1.5'"),
        ("/classify?top_k=0", "'top_k' is '0'"),
    ],
)
async def test_bad_parameters_are_named(
    client: httpx.AsyncClient, session: FakeSession, path: str, message: str
) -> None:
    warm = session.passes
    assert message in await refuse(client, path, PICTURE, 422, "invalid_parameter")
    assert session.passes == warm


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"GIF89a" + bytes(20), 415, "unsupported_image"),
        (PICTURE[:300], 422, "damaged_image"),
        (bytes(200_001), 413, "body_too_large"),
        (encode(Image.new("L", (501, 500))), 413, "too_many_pixels"),
        (encode(Image.new("L", (201, 1))), 422, "picture_too_costly"),
        (scan_bomb(40, 30, 200), 422, "picture_too_costly"),
    ],
)
async def test_bad_bodies_are_refused(
    client: httpx.AsyncClient, path: str, body: bytes, status: int, code: str
) -> None:
    await refuse(client, path, body, status, code)
    assert await count(client, "unihead_images_in_flight") == 0.0


async def test_a_body_of_exactly_the_limit_is_taken(client: httpx.AsyncClient) -> None:
    assert await ask(client, "/classify", PICTURE + bytes(200_000 - len(PICTURE)))


async def test_bytes_are_counted_as_they_arrive_whatever_was_announced(client: httpx.AsyncClient) -> None:
    taken = 0

    async def drip() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1000
            yield bytes(1000)

    for headers in ({}, {"Content-Length": "10"}):
        taken = 0
        response = await client.post("/detect", content=drip(), headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        assert taken <= 1_000_000
    response = await client.post("/detect", content=PICTURE, headers={"Content-Length": "999999"})
    assert response.json()["code"] == "body_too_large"


async def test_the_limit_counts_the_whole_form(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(title=bytes(150_000), file=PICTURE + bytes(60_000))
    await refuse(client, "/detect", body, 413, "body_too_large", Content_Type=content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/jpeg",
        "image/png",
        "image/webp",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain; charset=x",
        "",
    ],
)
async def test_the_first_bytes_decide_not_the_declared_type(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await ask(client, "/detect", Content_Type=content_type)
    assert answer["detections"] == (await ask(client, "/detect"))["detections"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_raw_and_multipart_are_answered_alike(client: httpx.AsyncClient, kind: str) -> None:
    picture = encode(make_picture(), kind)
    body, content_type = make_form(file=picture)
    raw = await ask(client, "/predict", picture)
    form = await ask(client, "/predict", body, Content_Type=content_type)
    del raw["timing_ms"], form["timing_ms"]
    assert raw == form


async def test_a_form_as_httpx_writes_it_is_taken(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", files={"file": ("../../etc/passwd", PICTURE, "text/html")})
    assert response.status_code == 200


async def test_a_form_without_file_is_malformed(client: httpx.AsyncClient) -> None:
    body, content_type = make_form(image=PICTURE)
    detail = await refuse(client, "/detect", body, 400, "malformed_request", Content_Type=content_type)
    assert "named `file`" in detail


async def test_bytes_behind_the_picture_are_ignored(client: httpx.AsyncClient) -> None:
    plain, padded = await ask(client, "/predict"), await ask(client, "/predict", PICTURE + b"trailing" * 100)
    del plain["timing_ms"], padded["timing_ms"]
    assert plain == padded


async def test_an_exif_picture_is_told_upright(client: httpx.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = await ask(client, "/detect", encode(make_picture(64, 48), "JPEG", exif=exif))
    assert answer["image"] == {"width": 48, "height": 64}


@pytest.mark.parametrize("path", ROUTES)
async def test_every_answer_says_where_its_milliseconds_went(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, content=PICTURE)
    entries = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    told = response.json()["timing_ms"]
    assert set(entries) == {*told, "other"} == {*STAGES, "other"}
    own = {stage: float(value) for stage, value in entries.items()}
    assert own["total"] == pytest.approx(sum(own.values()) - own["total"], abs=0.01)
    assert own["total"] >= told["total"] > 0
    task = path[1:]
    assert await count(client, f'unihead_ms_per_image_count{{stage="total",task="{task}"}}') == 1.0
    assert await count(client, 'unihead_ms_per_image_count{stage="forward",task="shared"}') == 1.0


async def test_a_png_answer_has_its_timing_too(client: httpx.AsyncClient) -> None:
    response = await client.post("/segment", content=PICTURE, headers={"Accept": "image/png"})
    assert [entry.partition(";")[0] for entry in response.headers["server-timing"].split(", ")][-1] == "total"


async def test_many_different_pictures_at_once_never_mix_their_answers(client: httpx.AsyncClient) -> None:
    bodies = [encode(np.full((8 + i, 40, 3), (6 * i, 240 - 6 * i, 80), dtype=np.uint8)) for i in range(40)]
    together = await asyncio.gather(*(ask(client, "/predict", body) for body in bodies))
    for i, (body, answer) in enumerate(zip(bodies, together, strict=True)):
        assert answer["image"]["height"] == 8 + i
        alone = await ask(client, "/predict", body)
        del alone["timing_ms"], answer["timing_ms"]
        assert answer == alone


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.jpg")))
async def test_the_shipped_pictures_are_answered(session: FakeSession, name: str) -> None:
    app = create_app(Settings(), Engine(session, make_contract()))
    body = (GOLDEN / name).read_bytes()
    async with app.router.lifespan_context(app), connect(app) as client:
        answer = await ask(client, "/predict", body)
    assert (answer["image"]["width"], answer["image"]["height"]) == Image.open(io.BytesIO(body)).size
