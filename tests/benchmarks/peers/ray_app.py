"""Ray Serve: one deployment for all tasks, one replica a CPU; the picture as the body."""

from __future__ import annotations

import sys
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tests.benchmarks.peers.pipeline import Pipeline


@serve.deployment(max_ongoing_requests=4)
class Unihead:
    """Each replica holds one pipeline."""

    def __init__(self) -> None:
        self._pipeline = Pipeline()

    async def __call__(self, request: Request) -> Response:
        """Answer the task that the path names."""
        body = await request.body()
        return Response(self._pipeline.answer(body, request.url.path.strip("/")), media_type="application/json")


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    ray.init(num_cpus=workers + 1, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Unihead.options(num_replicas=workers).bind(), route_prefix="/")  # type: ignore[attr-defined]  # Ray
    print("ready", flush=True)
    while True:
        time.sleep(60)
