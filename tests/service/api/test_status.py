from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import onnxruntime
import pytest

from service.api.status import WEB, describe_threads
from service.app import create_app
from service.engine.contract import parse_contract
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES
from service.machine import available_cpus
from service.settings import Settings
from tests.service.clients import connect
from tests.service.fakes import FakeSession, make_contract

pytestmark = pytest.mark.anyio


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_and_all_they_refer_to_are_served_from_here(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    links = Links(response.text).found
    assert links
    for link in links:
        assert not re.match(r"\w+:|//", link)
        assert (await client.get("/" + link)).status_code == 200


async def test_the_page_and_its_scripts_have_nothing_inline_and_load_nothing_from_elsewhere() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)
    files = [WEB / "index.html", WEB / "page.css", *(WEB / "page").glob("*.js")]
    found = {address for path in files for address in re.findall(r"https?://[^\s'\"]+", path.read_text("utf-8"))}
    assert {address.split("/")[2] for address in found} == {"localhost:8000"}  # in the examples


async def test_every_script_of_the_page_is_announced_and_served_as_one(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    scripts = sorted(path.name for path in (WEB / "page").glob("*.js"))
    assert scripts
    for name in scripts:
        assert f'"static/page/{name}"' in page
        response = await client.get(f"/static/page/{name}")
        assert response.headers["content-type"].startswith("text/javascript")


async def test_the_shipped_pictures_are_samples_of_the_page(client: httpx.AsyncClient) -> None:
    names = re.findall(r'data-sample="([^"]+)"', (await client.get("/")).text)
    assert sorted(names) == sorted(path.name for path in GOLDEN_PICTURES.glob("*.jpg"))
    for name in names:
        response = await client.get(f"/static/samples/{name}")
        assert response.headers["content-type"] == "image/jpeg"
        assert response.content == (GOLDEN_PICTURES / name).read_bytes()
    for path in ("/static/samples/none.jpg", "/static/samples/", "/static/samples/..%2F..%2Fmodels%2Funihead.onnx"):
        assert (await client.get(path)).status_code == 404


async def test_docs_never_send_the_document_to_a_validator(client: httpx.AsyncClient) -> None:
    script = (await client.get("/static/docs.js")).text
    assert "validatorUrl: null" in script
    assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.")


def test_the_licences_of_swagger_ui_are_shipped() -> None:
    shipped = {path.name for path in (WEB / "swagger-ui").iterdir()}
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} <= shipped


async def test_docs_can_be_switched_off() -> None:
    async with connect(create_app(Settings(docs=False))) as client:
        for path in ("/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "links"),
    [
        (Settings(), ["docs", "info", "metrics", "readyz"]),
        (Settings(docs=False), ["info", "metrics", "readyz"]),
        (Settings(metrics_port=9090), ["docs", "info", "readyz"]),
        (Settings(keys=Path("keys.txt")), ["readyz"]),
    ],
)
async def test_the_page_has_no_link_that_leads_nowhere(settings: Settings, links: list[str]) -> None:
    async with connect(create_app(settings)) as client:
        page = (await client.get("/")).text
    assert [link for link in Links(page).found if not link.startswith("static/")] == links
    assert page.rstrip().endswith("</html>")


async def test_info_tells_model_contract_versions_and_limits(client: httpx.AsyncClient) -> None:
    response = await client.get("/info")
    info = response.json()
    assert info["model"] == {
        "name": "unihead",
        "version": "tiny-0123456789ab",
        "preset": "tiny",
        "sha256": "c0ffee",
    }
    assert info["contract"]["detection_classes"] == ["person", "bicycle", "car", "kite"]
    assert info["versions"]["onnxruntime"] == onnxruntime.__version__
    assert info["limits"] == {
        "max_body_bytes": 200_000,
        "max_files": 16,
        "max_pixels": 250_000,
        "max_side": 16_384,
        "max_aspect": 200,
        "max_scans": 100,
        "max_scan_megapixels": 400,
        "max_frames": 1,
        "queue_limit": 64,
        "request_timeout_ms": 10_000,
        "cache_max_bytes": 64 * 2**20,
        "cache_max_age_s": 60.0,
        "max_batch": 1,
        "max_delay_ms": 2.0,
    }
    assert info["threads"] == {
        "cpus": 2,
        "forward_passes": 2,
        "alone": 1,
        "workers": 2,
        "reason": "the setting threads",
    }


def test_threads_taken_from_the_machine_say_so() -> None:
    threads = describe_threads(Settings(), Engine(FakeSession(), make_contract(), wide_threads=3))
    assert threads.alone == 3
    assert threads.cpus == available_cpus()
    assert threads.reason == "CPUs that affinity and cgroup quota allow"


async def test_the_contract_in_info_can_be_read_back(client: httpx.AsyncClient) -> None:
    contract = httpx.Response(200, json=(await client.get("/info")).json()["contract"])
    assert parse_contract(contract.text).classification_classes == ("red", "green", "blue")


async def test_metrics_are_prometheus_text_and_name_the_model(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE unihead_ms_per_image histogram" in response.text
    assert 'preset="tiny",sha256="c0ffee",version="tiny-0123456789ab"} 1.0' in response.text
    assert "process_resident_memory_bytes" in response.text


async def test_metrics_are_openmetrics_for_who_asks(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")
