"""/metrics on a port of its own, in threads: bounded, for what floods it would take the files of the other port."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from service.api.source import is_known_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("unihead")

# Connections at once, each with a thread; one more takes the place of the oldest.
MOST_SCRAPES = 16
# Seconds that a scraper may be silent, or read nothing.
_PATIENCE_S = 10


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing: the library would write to stderr."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Answers scrapes, each in a thread that ends with its connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, app: WSGIApplication) -> None:
        """Listen.

        Args:
            host: address to listen on.
            port: TCP port; 0 takes a free one.
            app: answers.

        Raises:
            OSError: the port is taken, or the address is none.
        """
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]  # str and int, which its types do not say
        self.set_app(app)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the library's
        """Answer in a thread; at the limit the oldest connection ends."""
        with self._lock:
            if len(self._open) >= MOST_SCRAPES:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread wakes up, and closes it
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - the library's
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Tell the log what the library would write to stderr."""
        logger.warning("a request for metrics failed: %r", sys.exc_info()[1])


@contextlib.contextmanager
def serve_metrics(host: str, port: int, registry: CollectorRegistry, allowed_hosts: Collection[str]) -> Iterator[int]:
    """Answer scrapes as long as the block lasts; gives the port.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        registry: of the metrics.
        allowed_hosts: see `service.api.source`.

    Raises:
        OSError: the port is taken, or the address is none.
    """
    server = MetricsServer(host, port, _guard(make_wsgi_app(registry), allowed_hosts))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _guard(app: Callable[..., Iterable[bytes]], allowed_hosts: Collection[str]) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_known_host(environ.get("HTTP_HOST", ""), allowed_hosts):
            return app(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain")])
        return [b"the Host that is asked for is none of this service's (its setting allowed_hosts)\n"]

    return answer
