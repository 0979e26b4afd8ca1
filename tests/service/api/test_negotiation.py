from __future__ import annotations

import pytest

from service.api.parameters import prefers_png


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "IMAGE/PNG",
        "image/*",
        "image/png, */*",
        "image/png,application/json;q=0.9",
        "application/json;q=0.2, image/*;q=0.3",
        "image/png;q=0.5, text/html",
        "image/png ; q=1.0 , */* ; q=0.1",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "application/json;q=0, */*",
    ],
)
def test_png_is_preferred(accept: str) -> None:
    assert prefers_png(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/*",
        "text/html",
        "image/jpeg",
        "image/png;q=0",
        "image/png;q=0, */*",
        "image/png;q=0.4, */*;q=0.5",
        "application/json, image/png",
        "image/png, application/json",
        "image/png;q=0.5, application/json;q=0.5",
        "image/*, application/json",
        "image/png;q=high",
        "image/png;q=2",
        "image",
        ";;,,/",
    ],
)
def test_json_is_the_answer(accept: str | None) -> None:
    assert not prefers_png(accept)
