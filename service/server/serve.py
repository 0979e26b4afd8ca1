"""One process that serves: settings, port, model and signals, and a clear sentence where one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
import uvloop
from fastapi import FastAPI

from service.api.keys import KeyFileError
from service.api.state import ServiceState
from service.app import create_app
from service.errors import ContractError, MissingPackage
from service.machine import keep_freed_memory
from service.server.metrics_port import serve_metrics
from service.server.pid_file import PidFileError, hold_pid_file
from service.server.places import Places
from service.server.protocol import Protocol
from service.server.server import (
    DRAIN_S,
    SIGNALS,
    GracefulServer,
    find_fault_of_limit,
    fit_connections,
    sweep_connections,
)
from service.server.variables import describe_odd_variables
from service.settings import ENV_PREFIX, InvalidSetting, Settings, read_settings
from service.telemetry.log_writer import LineWriter
from service.telemetry.logs import open_log
from service.telemetry.profile import ProfileError
from service.telemetry.tracing import TracingError

if TYPE_CHECKING:
    from service.api.grpc.server import GrpcServer

logger = logging.getLogger("unihead")

# Longer than proxies and clients keep idle connections (60 s): who closes first may not lose a request on its way.
_KEEP_ALIVE_S = 75
_BACKLOG = 2048


class StartError(Exception):
    """The service cannot start; says why in one sentence, and the exit code."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def serve(words: Sequence[str], descriptor: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        words: of the command line; see `unihead-serve --help`.
        descriptor: of a socket that a parent has bound for this process; None binds one to the host and port of the
            settings.

    Raises:
        StartError: a setting is wrong, the port is taken, or the model cannot be used.
    """
    settings = _read_settings(words)
    if (fault := find_fault_of_limit()) is not None:
        raise StartError(fault, code=2)
    # Before the model is loaded: a port that is taken is the most frequent mistake.
    with _listen(settings, descriptor) as listener, open_log(settings.log_level, settings.log_format) as log:
        keep_freed_memory()
        for sentence in describe_odd_variables(os.environ):
            logger.warning(sentence)
        if settings.auth == "off" and not _is_loopback(listener):
            logger.warning("auth is off: whoever reaches %s port %d is answered", *listener.getsockname()[:2])
        for number in SIGNALS:
            signal.signal(number, partial(_exit_before_ready, log))
        try:
            uvloop.run(_run(_allow_hosts(settings, listener), listener, log))
        except (ContractError, KeyFileError, PidFileError, ProfileError, TracingError) as error:
            raise StartError(str(error)) from error


def _read_settings(words: Sequence[str]) -> Settings:
    try:
        return read_settings(words)
    except InvalidSetting as error:
        raise StartError(str(error), code=2) from error


def _listen(settings: Settings, descriptor: int | None = None) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        with contextlib.ExitStack() as on_failure:
            listener = on_failure.enter_context(
                _bind(host, port) if descriptor is None else socket.socket(fileno=descriptor)
            )
            # Before the first connection; asked of the socket, because names mean what the system makes of them.
            if settings.auth is None and settings.keys is None and not _is_loopback(listener):
                raise StartError(
                    f"{host} is an address that others may reach, and there is no key file: name one with --keys "
                    f"({ENV_PREFIX}KEYS; `unihead-serve key new --file FILE` makes it), or let everybody in with "
                    f"--auth off ({ENV_PREFIX}AUTH=off)",
                    code=2,
                )
            listener.listen(_BACKLOG)
            on_failure.pop_all()
            return listener
    except OSError as error:
        raise StartError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose others with --host and --port"
        ) from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Not socket.create_server: it leaves the protocol out, asyncio then does not see TCP and keeps Nagle's algorithm,
    # and every answer on a kept connection waits 40 ms for a delayed acknowledgement.
    with contextlib.ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(family, kind, protocol))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        on_failure.pop_all()
        return listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _allow_hosts(settings: Settings, listener: socket.socket) -> Settings:
    """Where nobody comes from elsewhere, pages in a browser do: by names that are not this machine's."""
    if settings.allowed_hosts or not _is_loopback(listener):
        return settings
    return settings.model_copy(update={"allowed_hosts": ("localhost", settings.host.lower())})


def _exit_before_ready(log: LineWriter, number: int, _: FrameType | None) -> None:
    """On a signal during the start: no request is in flight, and a graceful shutdown would wait for the model."""
    logger.info("stopped by %s before it was ready", signal.Signals(number).name)
    log.stop()
    os._exit(0)


async def _run(settings: Settings, listener: socket.socket, log: LineWriter) -> None:
    app = create_app(settings)
    state: ServiceState = app.state.service
    log.watch_dropped(state.metrics.dropped_log_lines.inc)
    grpc = None if settings.grpc_port is None else _listen_for_grpc(state)
    max_connections = fit_connections(settings.max_connections, beside=0 if grpc is None else grpc.MOST_CONNECTIONS)
    protocol = partial(Protocol, settings=settings, places=Places(max_connections), memory=state.memory)
    server = GracefulServer(
        _configure(app, protocol),
        on_shutdown=state.drain,
        delay_s=settings.drain_delay_s,
        beside=None if grpc is None else grpc.drain,
    )
    state.metrics.show_connections(lambda: len(server.server_state.connections), max_connections)
    ready, reloads = asyncio.Event(), set[asyncio.Task[None]]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _begin_reload, state, ready, reloads)
    async with app.router.lifespan_context(app):
        for number in SIGNALS:
            signal.signal(number, server.handle_exit)
        ready.set()
        host, port = listener.getsockname()[:2]
        where = f"[{host}]" if ":" in host else host
        with hold_pid_file(settings.pid_file), _serve_metrics(settings, app):
            if grpc is not None:
                await grpc.start()
                logger.info("gRPC on port %d", grpc.port)
            logger.info("ready on http://%s:%d with %s", where, port, settings.model)
            async with sweep_connections(server):
                await server.serve(sockets=[listener])


def _listen_for_grpc(state: ServiceState) -> GrpcServer:
    """Take the port for gRPC; only here, so that without it nothing of it is even imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C library writes to stderr, between the lines of the log
    try:
        from service.api.grpc.server import GrpcServer  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("service."):
            raise StartError(
                "a gRPC port is asked for, and unihead was installed without the code for it, which a build makes with "
                "grpcio-tools: install unihead again"
            ) from error
        raise StartError(f"a gRPC port is asked for, and {MissingPackage(error.name, 'grpc')}") from error
    host, port = state.settings.host, state.settings.grpc_port
    try:
        return GrpcServer(state)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host} port {port} for gRPC: {error}; choose another with --grpc-port"
        ) from error


def _configure(app: FastAPI, protocol: Callable[..., Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",  # entered here, so that a model that cannot be loaded is one sentence and no traceback
        http=protocol,  # type: ignore[arg-type]  # uvicorn only calls it, once for each connection
        ws="none",
        log_config=None,
        log_level="error",  # it warns of every malformed request
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks who the client is
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


@contextlib.contextmanager
def _serve_metrics(settings: Settings, app: FastAPI) -> Iterator[None]:
    """Answer /metrics on a port of its own, if there is to be one."""
    if settings.metrics_port is None:
        yield
        return
    state: ServiceState = app.state.service
    with contextlib.ExitStack() as stack:
        serving = serve_metrics(settings.host, settings.metrics_port, state.metrics.registry, settings.allowed_hosts)
        try:
            port = stack.enter_context(serving)
        except OSError as error:
            raise StartError(
                f"cannot listen on {settings.host} port {settings.metrics_port} for metrics: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        logger.info("metrics on port %d", port)
        yield


def _begin_reload(state: ServiceState, ready: asyncio.Event, reloads: set[asyncio.Task[None]]) -> None:
    """On SIGHUP, in the event loop; the outcome is logged, counted, and shown by /info.

    Args:
        state: of the app.
        ready: set once the service is.
        reloads: those that run; an event loop holds its tasks weakly.
    """
    reloads.add(task := asyncio.ensure_future(_reload(state, ready)))
    task.add_done_callback(reloads.discard)


async def _reload(state: ServiceState, ready: asyncio.Event) -> None:
    """Keys first: they take no time, and a leaked key must not stay valid while a model is loaded."""
    await ready.wait()  # the files may have been read already, and have changed since
    if state.keys is not None:
        await state.keys.reloader.reload()
    if state.reloader is not None:
        await state.reloader.reload()
