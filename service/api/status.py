"""What is not about a picture: the page, /docs, health, what runs here, and its metrics."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from service.answers.schemas import Info, Threads
from service.api.fields.preferences import split_list
from service.api.key_ring import KeyRing
from service.api.problems import document_problems
from service.api.router import HealthRoute, KeylessRoute, VitalRoute, declare
from service.api.state import state_of
from service.engine.contract import ModelContract
from service.engine.engine import Engine
from service.engine.golden import GOLDEN_PICTURES
from service.machine import find_version
from service.pictures.limits import PictureLimits
from service.settings import Settings

WEB = Path(__file__).parents[1] / "web"
_LIBRARIES = ("unihead", "onnxruntime", "numpy", "pillow", "simplejpeg", "fastapi", "starlette", "uvicorn")

_LIMITS = (
    "max_body_bytes",
    "max_files",
    *(field.name for field in dataclasses.fields(PictureLimits)),
    "queue_limit",
    "request_timeout_ms",
    "cache_max_bytes",
    "cache_max_age_s",
    "max_batch",
    "max_delay_ms",
)

# Of the text formats; the library takes any text for a number, and raises.
_FORMAT_VERSIONS = frozenset({"0.0.1", "0.0.4", "1.0.0"})
_METRICS_KINDS = ("text/plain", "application/openmetrics-text")

_THRESHOLD = 'value="30"'  # of the page's slider, in per cent
_static_files = StaticFiles(directory=WEB)
_samples = StaticFiles(directory=GOLDEN_PICTURES)
router = APIRouter(tags=["service"])
docs_router = APIRouter()
metrics_router = APIRouter(tags=["service"])


@declare(router, KeylessRoute, "GET", "/", include_in_schema=False)
def page(request: Request) -> HTMLResponse:
    """Show a page to try it on."""
    state = state_of(request)
    contract = state.scheduler.engine.contract if state.scheduler is not None else None
    return HTMLResponse(write_page(state.settings, contract))


def write_page(settings: Settings, contract: ModelContract | None) -> str:
    """Read the page, its slider at the model's threshold, where there is a model yet.

    Links are left out that whoever clicks on them could not follow: a browser sends no key then.
    """
    closed = {
        "docs": not settings.docs or settings.keys is not None,
        "info": settings.keys is not None,
        "metrics": settings.metrics_port is not None or settings.keys is not None,
    }
    dead = tuple(f'<a href="{path}">' for path, is_closed in closed.items() if is_closed)
    lines = (WEB / "index.html").read_text(encoding="utf-8").splitlines(keepends=True)
    page = "".join(line for line in lines if not line.lstrip().startswith(dead))
    return page if contract is None else page.replace(_THRESHOLD, f'value="{100 * contract.score_threshold:.0f}"')


@declare(router, KeylessRoute, "GET", "/static/{path:path}", include_in_schema=False)
async def static(request: Request, path: str) -> Response:
    """Serve a file of the pages, or a shipped picture; a route, because mounts leave no template for the metrics."""
    folder, _, name = path.partition("/")
    if folder == "samples":
        return await _samples.get_response(name, request.scope)
    return await _static_files.get_response(path, request.scope)


@docs_router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """Describe the API."""
    return JSONResponse(request.app.openapi())


@docs_router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """Show /openapi.json with Swagger UI; its assets are shipped, because /docs works without the internet."""
    return FileResponse(WEB / "docs.html")


@declare(router, HealthRoute, "GET", "/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    """Answer as long as the event loop turns; no reason to restart the process then."""
    return {"status": "ok"}


@declare(
    router, HealthRoute, "GET", "/readyz", responses=document_problems(503), summary="The model is loaded and warm"
)
async def readyz(request: Request) -> dict[str, str]:
    """Answer 200 while pictures should be sent here; 503 before the model is warm, and from SIGTERM on."""
    state_of(request).require_ready()
    return {"status": "ready"}


@router.get("/info", responses=document_problems(503), summary="Model, contract, versions, limits")
async def info(request: Request) -> Info:
    """Tell what runs here and what it takes."""
    state = state_of(request)
    engine = state.require_scheduler().engine
    contract = engine.contract
    last = state.reloader.last if state.reloader is not None else None
    return Info(
        model={
            "name": contract.name,
            "version": contract.version,
            "preset": contract.preset,
            "sha256": engine.sha256,
        },
        contract=dataclasses.asdict(contract),
        versions={"python": platform.python_version()} | {name: find_version(name) for name in _LIBRARIES},
        limits={name: getattr(state.settings, name) for name in _LIMITS},
        threads=describe_threads(state.settings, engine),
        last_reload=dataclasses.asdict(last) | {"sha256": engine.sha256} if last is not None else None,
        keys=_describe_keys(state.keys) if state.keys is not None else None,
    )


def _describe_keys(ring: KeyRing) -> dict[str, Any]:
    """Tell how many there are; whose they are is in the log alone."""
    last = ring.reloader.last
    return {
        "in_force": len(ring.keys.hashes),
        "last_reload": dataclasses.asdict(last) if last is not None else None,
    }


def describe_threads(settings: Settings, engine: Engine) -> Threads:
    """Tell how the CPUs are used, and why."""
    return Threads(
        cpus=settings.cpu_threads,
        forward_passes=settings.cpu_threads,
        alone=engine.alone_threads,
        workers=settings.workers,
        reason="the setting threads" if settings.threads else "CPUs that affinity and cgroup quota allow",
    )


@declare(
    metrics_router,
    VitalRoute,
    "GET",
    "/metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in _METRICS_KINDS}}},
)
async def metrics(request: Request) -> Response:
    """Write all metrics in the text format that the scraper asks for."""
    encode, content_type = choose_encoder(_read_known(request.headers.get("accept", "")))
    return Response(encode(state_of(request).metrics.registry), headers={"Content-Type": content_type})


def _read_known(accept: str) -> str:
    """Leave out of `Accept` what asks for a version that there is not."""
    return ",".join(item for item in split_list(accept) if _find_versions(item) <= _FORMAT_VERSIONS)


def _find_versions(media_range: str) -> set[str]:
    pairs = (parameter.strip().partition("=") for parameter in media_range.split(";"))
    return {value for name, _, value in pairs if name == "version"}
