"""/docs behind nginx, below a prefix that the service knows nothing of: what is tried there asks the service."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from service.commands.spawn import Spawned
from tests.outside import find_command
from tests.page.browser import CHELSEA, Record, record

pytestmark = pytest.mark.full

CONFIG = """
daemon off;
pid nginx.pid;
events {}
http {
  access_log off;
  client_body_buffer_size 1m;
  %(folders)s
  server {
    listen 127.0.0.1:%(port)d;
    location /some/prefix/ {
      proxy_pass http://%(host)s:%(upstream)d/;
      proxy_set_header Host $http_host;
    }
  }
}
"""
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@pytest.fixture(scope="module")
def prefixed(served: Spawned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service, below its prefix."""
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folders = " ".join(f"{name}_temp_path {name};" for name in FOLDERS)
    words = {"folders": folders, "port": port, "host": served.host, "upstream": served.port}
    (folder / "nginx.conf").write_text(CONFIG % words)
    command = [find_command("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command) as nginx:
        try:
            wait_for(f"http://127.0.0.1:{port}/some/prefix/readyz", nginx)
            yield f"http://127.0.0.1:{port}/some/prefix"
        finally:
            nginx.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 10
    while True:
        try:
            assert httpx.get(url).status_code == 200
        except httpx.ConnectError:
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def docs(chromium: Browser, prefixed: str) -> Iterator[tuple[Page, Record]]:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    noted = record(page)
    page.goto(f"{prefixed}/docs")
    yield page, noted
    page.close()
    assert noted.complaints == []


def test_try_it_out_asks_below_the_prefix(docs: tuple[Page, Record], prefixed: str) -> None:
    page, noted = docs
    health = page.locator("#operations-service-healthz")
    health.get_by_role("button").first.click()
    health.get_by_role("button", name="Execute").click()
    expect(health.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("200")
    expect(health.locator(".request-url")).to_contain_text(f"{prefixed}/healthz")

    detect = page.locator("#operations-pictures-detect")
    detect.get_by_role("button").first.click()
    detect.get_by_label("Request content type").select_option("multipart/form-data")
    detect.locator("input[type=file]").set_input_files(CHELSEA)
    detect.get_by_role("button", name="Execute").click()
    expect(detect.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("200", timeout=20_000)
    expect(detect.locator(".live-responses-table .response-col_description").nth(1)).to_contain_text('"cat"')
    (question,) = noted.questions
    assert question.startswith(f"{prefixed}/detect?")
    assert noted.hosts == {prefixed.split("/")[2]}
