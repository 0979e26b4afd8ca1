"""MLServer: one model with a route a task; the picture as the body. It runs in an environment of its own.

Version 1.7 asks for older packages than the service, so that unihead is installed beside it without what it requires.
Its worker processes take pickled bytes over a queue; what is measured is one process with a thread a CPU.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from fastapi import Request
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from starlette.responses import Response

from tests.benchmarks.peers.pipeline import Pipeline


class Unihead(MLModel):
    """One session of one thread, which several threads may use."""

    async def load(self) -> bool:
        """Load the model."""
        self._pipeline = Pipeline()
        self._pool = ThreadPoolExecutor(int(self.settings.parameters.extra["threads"]))
        return True

    @custom_handler(rest_path="/predict")
    async def answer_predict(self, request: Request) -> Response:
        """All three."""
        return await self._answer(request)

    @custom_handler(rest_path="/segment")
    async def answer_segment(self, request: Request) -> Response:
        """Masks."""
        return await self._answer(request)

    @custom_handler(rest_path="/detect")
    async def answer_detect(self, request: Request) -> Response:
        """Boxes."""
        return await self._answer(request)

    @custom_handler(rest_path="/classify")
    async def answer_classify(self, request: Request) -> Response:
        """Classes."""
        return await self._answer(request)

    async def _answer(self, request: Request) -> Response:
        body, task = await request.body(), request.url.path.strip("/")
        content = await asyncio.get_running_loop().run_in_executor(self._pool, self._pipeline.answer, body, task)
        return Response(content, media_type="application/json")


async def _serve(port: int, threads: int) -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=0,
        debug=False,
        use_structured_logging=False,
        load_models_at_startup=False,
    )
    model = ModelSettings(name="unihead", implementation=Unihead, parameters={"extra": {"threads": threads}})
    server = MLServer(settings)
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
