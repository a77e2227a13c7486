"""/livez, /readyz and /metrics, which every process serves with any roles, and the HTTP server itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import h11
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.settings import PREFIX, Settings, SettingsError
from service.telemetry.health import Health
from service.telemetry.metrics import REGISTRY


class IdConvertor(IntegerConvertor):
    """A path's number, at most as long as a bigint. Starlette's converter raises an error on 5,000 digits."""

    regex = "[0-9]{1,19}"


register_url_convertor("id", IdConvertor())


HEADERS_WITHIN = 10.0
"""Seconds that a client may take to send a request's headers."""
BODY_WITHIN = 30.0
"""Seconds from the headers to the end of the body. Must exceed the limits of a request (API, page)."""
MAX_SILENT = 100
"""The maximum number of connections whose request is incomplete. A further one closes the oldest."""


def make_app(health: Health, *, with_metrics: bool = True) -> Starlette:
    """Create the application of a process without the role `api`, or of METRICS_PORT."""
    return Starlette(routes=health_routes(health, with_metrics=with_metrics))


def health_routes(health: Health, *, with_metrics: bool = True) -> list[BaseRoute]:
    """Return the routes that every process serves. Where METRICS_PORT is set, only that port serves /metrics."""

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
    """Return a listening socket on HTTP_HOST, by default on HTTP_PORT. Port 0 chooses a free port.

    `variable` is the name of the port's setting, for the error's text.

    Raises:
        SettingsError: the port is in use, or the address is not this machine's.
    """
    port = settings.http_port if port is None else port
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, port))
        listener.listen()  # now, so that early connections wait for the server and are not refused
    except OSError as error:
        listener.close()
        where = f"{settings.http_host}:{port}"
        hint = f"choose another port with {PREFIX}{variable}, or 0 for a free one"
        raise SettingsError(f"cannot listen on {where}: {error.strerror}; {hint}") from error
    return listener


@contextlib.asynccontextmanager
async def served(app: ASGIApp, listener: socket.socket) -> AsyncIterator[str]:
    """Serve `app` on the listening socket, and yield the URL."""
    config = uvicorn.Config(
        app,
        http=_TimeLimitedHttp,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
        server_header=False,
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


class _TimeLimitedHttp(H11Protocol):
    """uvicorn's HTTP protocol with limits on the time to receive a request and on the number of incomplete requests.

    uvicorn has no such limits, so silent connections could use up the file descriptors that the probes need.
    """

    _silent: ClassVar[dict[_TimeLimitedHttp, asyncio.TimerHandle]] = {}
    """Connections whose request is incomplete, the oldest first."""
    _receiving: object = None
    """The request whose headers are complete and whose body is incomplete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the limit for the headers. Where there are too many silent connections, close the oldest."""
        super().connection_made(transport)
        if len(self._silent) >= MAX_SILENT:
            next(iter(self._silent))._give_up()  # noqa: SLF001 - of the same class
        self._wait(HEADERS_WITHIN)

    def data_received(self, data: bytes) -> None:
        """Stop the limit when the request is complete, and start it with the first byte of the next request."""
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            if self._receiving is not self.cycle:
                self._receiving = self.cycle
                self._wait(BODY_WITHIN)
        elif self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self not in self._silent:
            self._wait(HEADERS_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the limit."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        if timer := self._silent.get(self):
            timer.cancel()
        # A known connection keeps its place in the order.
        self._silent[self] = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if timer := self._silent.pop(self, None):
            timer.cancel()

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, because the runtime handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
