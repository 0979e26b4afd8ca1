"""LitServe: one route a task, each in worker processes of its own; the picture as a form's `file`."""

# No `from __future__ import annotations`: LitServe looks at the annotation of `request` to know what to hand over.
import sys
from typing import Any, cast

import litserve as ls
from fastapi import Request
from starlette.responses import Response

from tests.benchmarks.peers.pipeline import TASKS, Pipeline


class Api(ls.LitAPI):
    """The hooks that LitServe calls in its worker process."""

    def __init__(self, task: str) -> None:
        super().__init__(api_path=f"/{task}")
        self._task = task

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model."""
        self._pipeline = Pipeline()

    def decode_request(self, request: Request) -> bytes:
        """Take the picture's bytes; what LitServe calls a request is the form."""
        form = cast("Any", request)
        return bytes(form["file"].file.read())

    def predict(self, body: bytes) -> bytes:
        """Answer."""
        return self._pipeline.answer(body, self._task)

    def encode_response(self, output: bytes) -> Response:
        """Send the JSON as it is."""
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    port, workers, tasks = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(TASKS)
    server = ls.LitServer([Api(task) for task in tasks], accelerator="cpu", workers_per_device=workers)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error", num_api_servers=1)
