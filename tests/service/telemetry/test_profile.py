from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.engine.engine import Engine
from service.settings import Settings
from service.telemetry.profile import Profile, ProfileError, open_profile
from service.telemetry.timing import Stopwatch
from tests.service.clients import connect
from tests.service.fakes import FakeSession, encode, make_contract, make_picture


def read(text: str) -> list[dict[str, Any]]:
    return list(json.loads(f"{text.rstrip().rstrip(',')}]"))


def finish(*times: float) -> Stopwatch:
    ticks = iter(times)
    watch = Stopwatch(clock=lambda: next(ticks))
    watch.lap("decode")
    watch.lap("forward")
    watch.finish()
    return watch


def test_stages_lie_inside_their_request() -> None:
    file = io.StringIO()
    Profile(file).write("detect", "abc", "miss", finish(10.0, 10.001, 10.011, 10.012))
    whole, decode, forward = read(file.getvalue())
    assert (whole["name"], whole["ts"], whole["dur"]) == ("/detect", 10_000_000, 12_000)
    assert (decode["name"], decode["ts"], decode["dur"]) == ("decode", 10_000_000, 1_000)
    assert (forward["name"], forward["ts"], forward["dur"]) == ("forward", 10_001_000, 10_000)
    assert whole["args"] == {"request_id": "abc", "cache": "miss"}
    assert {event["ph"] for event in (whole, decode, forward)} == {"X"}


def test_requests_at_once_lie_in_rows_of_their_own() -> None:
    file = io.StringIO()
    profile = Profile(file)
    for start in (0.0, 5.0, 21.0):
        profile.write("detect", "abc", "miss", finish(start, start + 1, start + 10, start + 11))
    assert [event["tid"] for event in read(file.getvalue()) if event["name"] == "/detect"] == [0, 1, 0]


@pytest.mark.anyio
async def test_the_service_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    app = create_app(Settings(profile=path), Engine(FakeSession(), make_contract()))
    async with app.router.lifespan_context(app), connect(app) as client:
        body = encode(make_picture())
        await asyncio.gather(*(client.post(f"/{task}", content=body) for task in ("segment", "detect", "classify")))
        await client.post("/v2/models/unihead/infer", content=body, headers={"Inference-Header-Content-Length": "0"})
    events = read(path.read_text())
    assert {event["name"] for event in events} >= {"/segment", "/detect", "/classify", "/infer", "forward", "encode"}
    assert sum(event["name"] == "forward" for event in events) == 1


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be written: No such file"), open_profile(tmp_path / "no" / "x.json"):
        pass


def test_a_full_disk_ends_the_profile_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with open_profile(Path("/dev/full")) as profile:
        assert profile is not None
        for _ in range(3):
            profile.write("detect", "abc", "miss", finish(10.0, 10.001, 10.011, 10.012))
    (record,) = caplog.records
    assert record.getMessage() == "the profile ends here, it cannot be written any more: No space left on device"
