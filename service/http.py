"""/livez, /readyz and /metrics, which every process serves whatever its roles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from service.health import Health
from service.metrics import REGISTRY
from service.settings import PREFIX, Settings, SettingsError


def make_app(health: Health, *, with_metrics: bool = True) -> Starlette:
    """Create the application of a process without the role `api`, and the one on METRICS_PORT."""
    return Starlette(routes=health_routes(health, with_metrics=with_metrics))


def health_routes(health: Health, *, with_metrics: bool = True) -> list[BaseRoute]:
    """Return what every process serves; where METRICS_PORT is set, /metrics is on that port only."""

    async def livez(_request: Request) -> Response:
        answer = {"alive": not health.stalled, "reason": health.stalled}
        return JSONResponse(answer, 503 if health.stalled else 200)

    async def readyz(_request: Request) -> Response:
        return JSONResponse({"ready": health.ready, "problems": health.for_anybody()}, 200 if health.ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes: list[BaseRoute] = [Route("/livez", livez), Route("/readyz", readyz)]
    return [*routes, Route("/metrics", metrics)] if with_metrics else routes


def bind(settings: Settings, port: int | None = None, variable: str = "HTTP_PORT") -> socket.socket:
    """Bind a port of HTTP_HOST, by default HTTP_PORT; 0 takes a free one. `variable` is the setting that names it.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's.
    """
    port = settings.http_port if port is None else port
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, port))
        listener.listen()  # at once: what connects before the server runs waits instead of being refused
    except OSError as error:
        listener.close()
        where = f"{settings.http_host}:{port}"
        hint = f"choose another with {PREFIX}{variable}, or 0 for a free one"
        raise SettingsError(f"cannot listen on {where}: {error.strerror}; {hint}") from error
    return listener


@contextlib.asynccontextmanager
async def served(app: ASGIApp, listener: socket.socket) -> AsyncIterator[str]:
    """Serve `app` on the bound socket; yields the URL."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, server_header=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: signals are the runtime's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
