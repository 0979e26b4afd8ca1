from __future__ import annotations

import base64
import dataclasses
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from service.answers import render
from service.answers.finish import Look, finish_overlay
from service.engine import postprocess
from service.engine.engine import Prediction
from service.engine.postprocess import Answer
from service.errors import DamagedImage, TooManyPixels
from service.pictures.imaging import UInt8Array, decode, fit
from service.pictures.limits import DEFAULT_LIMITS, PictureLimits
from service.telemetry.timing import Stopwatch
from tests.service.clients import PICTURE, count, refuse
from tests.service.fakes import BOXES, LABELS, SCORES, FakeSession, encode, make_contract, make_form, make_picture

pytestmark = pytest.mark.anyio


async def draw(client: httpx.AsyncClient, query: str = "", body: bytes = PICTURE, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await client.post(f"/overlay{query}", content=body, headers=named)
    assert response.status_code == 200, response.text
    return response


def pixels_of(response: httpx.Response) -> UInt8Array:
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))


def make_answer(width: int, height: int) -> Answer:
    """All cells are cats."""
    contract = make_contract()
    prediction = Prediction(
        {
            "boxes": BOXES[:1],
            "scores": SCORES[:1],
            "labels": LABELS[:1],
            "mask": np.ones((8, 8), dtype=np.uint8),
            "class_probs": np.array([1, 0, 0], dtype=np.float32),
        }
    )
    return Answer(prediction, fit(width, height, contract.input_size), contract)


async def test_the_overlay_is_the_picture_with_mask_and_boxes_of_the_same_pass(client: httpx.AsyncClient) -> None:
    body = encode(make_picture(64, 48), "PNG")
    told = (await client.post("/predict?score_threshold=0.5&mask=raw", content=body)).json()
    drawn = pixels_of(await draw(client, "?format=png&score_threshold=0.5&opacity=0.3", body))
    class_ids = np.frombuffer(base64.b64decode(told["mask"]["data"]), dtype=np.uint8).reshape(48, 64)
    detections = [
        postprocess.Detection(tuple(one["box"]), one["label"], one["label_id"], one["score"])
        for one in told["detections"]
    ]
    assert len(detections) == 2
    names = {one["label_id"]: one["label"] for one in told["segments"]}
    expected = render.overlay(decode(body), class_ids, detections, names=names, opacity=0.3)
    np.testing.assert_array_equal(drawn, expected)


async def test_without_boxes_and_tint_the_picture_stays_what_it_was_but_for_outlines(client: httpx.AsyncClient) -> None:
    body = encode(np.full((40, 60, 3), (20, 200, 30), dtype=np.uint8))  # no red: all background
    drawn = pixels_of(await draw(client, "?format=png&score_threshold=1&opacity=0", body))
    np.testing.assert_array_equal(drawn, decode(body))


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
async def test_the_format_is_what_was_asked_for(client: httpx.AsyncClient, form: str) -> None:
    response = await draw(client, f"?score_threshold=1&format={form}", Accept="image/gif")
    assert response.headers["content-type"] == f"image/{form}"
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.mode, picture.size) == (form.upper(), "RGB", (64, 48))
    lossless = pixels_of(await draw(client, "?score_threshold=1&format=png")).astype(int)
    assert np.abs(np.asarray(picture).astype(int) - lossless).mean() < 6


async def test_it_is_a_jpeg_where_nothing_is_said(client: httpx.AsyncClient) -> None:
    assert (await draw(client)).headers["content-type"] == "image/jpeg"


async def test_a_large_picture_is_drawn_smaller_and_a_small_one_never_larger(client: httpx.AsyncClient) -> None:
    tall = encode(make_picture(100, 400), "JPEG")
    assert pixels_of(await draw(client, "?max_side=200", tall)).shape == (200, 50, 3)
    assert pixels_of(await draw(client, "?max_side=2048", tall)).shape == (400, 100, 3)


async def test_it_stands_upright(client: httpx.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(make_picture(64, 48), "JPEG", exif=exif)
    assert pixels_of(await draw(client, "", turned)).shape == (64, 48, 3)


def test_mask_and_boxes_lie_where_they_lie_on_the_original_whatever_the_size() -> None:
    picture = np.zeros((2400, 3200, 3), dtype=np.uint8)
    answer = make_answer(3200, 2400)
    mask = answer.prediction.mask.copy()
    mask[:, 4:] = 0  # the left half is a cat
    answer = dataclasses.replace(answer, prediction=Prediction({**answer.prediction.arrays, "mask": mask}))
    watch, look = Stopwatch(), Look(format="png", max_side=800, score_threshold=1)
    finished = finish_overlay(answer, watch, picture=encode(picture, "JPEG"), look=look, limits=DEFAULT_LIMITS)
    drawn = np.asarray(Image.open(io.BytesIO(finished.data)))
    assert drawn.shape == (600, 800, 3)
    assert (drawn[:, :400].max(axis=2) > 100).all()
    assert (drawn[:, 400:] == 0).all()
    assert list(watch.timings_ms) == ["postprocess", "encode"]
    boxed = finish_overlay(
        answer,
        Stopwatch(),
        picture=encode(picture, "JPEG"),
        look=dataclasses.replace(look, score_threshold=0),
        limits=DEFAULT_LIMITS,
    )
    difference = np.argwhere((np.asarray(Image.open(io.BytesIO(boxed.data))) != drawn).any(axis=2))
    # The box [4, 4, 20, 12] of a square of 32 is [100, 100, 500, 300] of 800; lines are some pixels wide.
    np.testing.assert_allclose(difference.max(axis=0)[::-1], (500, 300), atol=6)


@pytest.mark.parametrize(
    ("picture", "limits", "error"),
    [
        (encode(make_picture(64, 48), "PNG")[:-200], DEFAULT_LIMITS, DamagedImage),
        (PICTURE, PictureLimits(max_pixels=1000), TooManyPixels),
    ],
)
def test_the_second_decoding_has_the_same_limits(picture: bytes, limits: PictureLimits, error: type[Exception]) -> None:
    with pytest.raises(error):
        finish_overlay(make_answer(64, 48), Stopwatch(), picture=picture, look=Look(), limits=limits)


async def test_it_shares_the_pass_of_the_other_paths(client: httpx.AsyncClient, session: FakeSession) -> None:
    warm = session.passes
    await client.post("/detect", content=PICTURE)
    form, content_type = make_form(file=PICTURE)
    response = await draw(client, "", form, Content_Type=content_type)
    assert response.headers["x-unihead-cache"] == "hit"
    assert session.passes == warm + 1
    assert await count(client, "unihead_forward_passes_total") == 1.0
    fresh = await draw(client, Cache_Control="no-cache")
    assert (fresh.headers["x-unihead-cache"], session.passes) == ("bypass", warm + 2)


@pytest.mark.parametrize("before", [[], ["/detect"]])
async def test_its_milliseconds_are_counted_under_its_name(client: httpx.AsyncClient, before: list[str]) -> None:
    for path in before:
        await client.post(path, content=PICTURE)
    response = await draw(client)
    entries = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    shared = set() if before else {"decode", "preprocess", "forward"}
    assert set(entries) == {"queue", "postprocess", "encode", "other", "total"} | shared
    for stage in ("postprocess", "encode", "other", "total"):
        assert await count(client, f'unihead_ms_per_image_count{{stage="{stage}",task="overlay"}}') == 1.0
    assert await count(client, 'unihead_ms_per_image_count{stage="queue",task="overlay"}') == len(before)
    assert await count(client, 'unihead_ms_per_image_count{stage="forward",task="shared"}') == 1.0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?opacity=1.1", "'opacity' is '1.1'"),
        ("?opacity=nan", "'opacity' is 'nan'"),
        ("?format=gif", "'format' is 'gif': input should be 'jpeg', 'png' or 'webp'"),
        ("?max_side=31", "'max_side' is '31'"),
        ("?max_side=2049", "'max_side' is '2049'"),
        ("?score_threshold=-1", "'score_threshold' is '-1'"),
        ("?max_detections=5", "max_detections is 5; the model gives 4 at most"),
        ("?mask=rle", "this path knows format, max_detections, max_side, opacity, score_threshold"),
    ],
)
async def test_bad_parameters_are_named(client: httpx.AsyncClient, query: str, message: str) -> None:
    assert message in await refuse(client, f"/overlay{query}", PICTURE, 422, "invalid_parameter")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"GIF89a" + bytes(20), 415, "unsupported_image"),
        (PICTURE[:300], 422, "damaged_image"),
        (encode(Image.new("L", (501, 500))), 413, "too_many_pixels"),
        (bytes(200_001), 413, "body_too_large"),
    ],
)
async def test_bad_bodies_are_problems(client: httpx.AsyncClient, body: bytes, status: int, code: str) -> None:
    await refuse(client, "/overlay", body, status, code)


async def test_the_documentation_has_its_formats_and_parameters(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/overlay"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {"image/jpeg", "image/png", "image/webp"}
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"opacity", "format", "max_side", "score_threshold", "max_detections", "Cache-Control"} <= names
