"""`levelsync serve`: start the roles when PostgreSQL, Kafka and the migrations are ready, and drain them at the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.role import apply_role
from service.outbox.relay import relay_role
from service.process.schedule import schedule_role
from service.process.startup import wait_until_ready
from service.process.watch import Sampler, Stalled, watch
from service.reconcile.work import reconcile_role
from service.settings import Settings, SettingsError
from service.store.engine import make_engine, pool_sizes
from service.stream.background import StopSignal, interruptible
from service.telemetry import metrics
from service.telemetry.health import Health
from service.telemetry.logs import configure_logs
from service.web import http

if TYPE_CHECKING:
    from service.web.api.app import Api

log = structlog.get_logger(__name__)
ROLES = frozenset({"apply", "reconcile", "relay", "schedule", "api"})
STOP_TIMEOUT = 9.5
"""Seconds after which the process exits, even if a part hangs. It must exit within 10 seconds of SIGTERM."""
_ALLOCATIONS_A_COLLECTION = 50_000


class Service:
    """The roles of one process, as a context manager: ``async with Service(settings, roles) as service``."""

    def __init__(self, settings: Settings, roles: frozenset[str] = ROLES) -> None:
        self.settings = settings
        self.roles = roles
        self.health = Health()
        self.http_url = ""
        self.metrics_url = ""
        self._api = _api(settings) if "api" in roles else None  # first, because it fails without a key
        pool_size, _ = pool_sizes(settings, with_api="api" in roles)
        self._engine: AsyncEngine = make_engine(settings, pool_size=pool_size, max_overflow=0)
        metrics.set_runbook_url(settings.runbook_url)
        self._listener, self._metrics_listener = _listeners(settings)
        self._stack = contextlib.AsyncExitStack()
        self._work: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def __aenter__(self) -> Service:
        self.health.report("service", self, "starting")
        with_metrics = self._metrics_listener is None
        app = http.make_app(self.health, with_metrics=with_metrics)
        if self._api is not None:
            app = await self._stack.enter_async_context(self._api.app(self.health, with_metrics=with_metrics))
        self.http_url = self.metrics_url = await self._stack.enter_async_context(http.served(app, self._listener))
        if self._metrics_listener is not None:
            served = http.served(http.make_app(self.health), self._metrics_listener)
            self.metrics_url = await self._stack.enter_async_context(served)
            log.info("metrics", url=f"{self.metrics_url}/metrics")
        log.info("serving", url=self.http_url, roles=sorted(self.roles))
        self._work = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._work
        await self._stack.aclose()
        await self._engine.dispose()

    async def ready(self) -> None:
        """Wait until every role runs.

        Raises:
            Exception: the error that ended the service before that.
        """
        up = asyncio.create_task(self._up.wait())
        assert self._work is not None  # noqa: S101 - only inside the context
        await asyncio.wait({up, self._work}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._work.done():
            self._work.result()

    async def ended(self) -> None:
        """Wait until the service ends by itself. Only a wrong setting or a stalled consumer ends it.

        Raises:
            SettingsError: a setting does not fit the database.
            Stalled: a consumer is stalled.
        """
        assert self._work is not None  # noqa: S101 - only inside the context
        await asyncio.shield(self._work)

    async def _run(self) -> None:
        cluster_id = await interruptible(wait_until_ready(self._engine, self.settings, self.health))
        sampler = Sampler()
        async with contextlib.AsyncExitStack() as stack:
            consuming = {"apply": apply_role, "reconcile": reconcile_role}
            roles = [
                role(self._engine, self.settings, self.health, cluster_id)
                for name, role in consuming.items()
                if name in self.roles
            ]
            # Start both at once, because by default a broker delays each new group by three seconds.
            consumers = await asyncio.gather(*(stack.enter_async_context(role) for role in roles))
            if "relay" in self.roles:
                await stack.enter_async_context(relay_role(self._engine, self.settings, self.health))
            if "schedule" in self.roles:
                await stack.enter_async_context(schedule_role(self._engine, self.settings, self.health))
            self.health.clear("service", self)
            self._up.set()
            log.info("ready", url=self.http_url)
            all_consumers = lambda: [consumer for found in consumers for consumer in found()]  # noqa: E731 - used once
            await interruptible(watch(self._engine, self.settings, self.health, all_consumers, cluster_id, sampler))


def _listeners(settings: Settings) -> tuple[socket.socket, socket.socket | None]:
    """Bind HTTP_PORT, and METRICS_PORT where it is set."""
    listener = http.bind(settings)
    if settings.metrics_port is None:
        return listener, None
    try:
        return listener, http.bind(settings, settings.metrics_port, "METRICS_PORT")
    except SettingsError:
        listener.close()
        raise


def _api(settings: Settings) -> Api:
    from service.web.api.app import Api  # noqa: PLC0415 - FastAPI takes 15 MB, which the other roles do not need

    return Api(settings)


def _check_secret(settings: Settings) -> None:
    from service.admin.keys import check_secret  # noqa: PLC0415 - as above

    check_secret(settings)


def run(settings: Settings, roles: frozenset[str] | set[str] = ROLES) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code: 0 drained, 1 stalled, 2 wrong settings."""
    configure_logs(settings)
    # A batch creates many objects and hardly any cycles. With the defaults, the garbage collector uses a quarter of the
    # CPU time while a backlog is applied.
    gc.freeze()  # the loaded modules stay, so the collector can skip them
    gc.set_threshold(_ALLOCATIONS_A_COLLECTION)
    try:
        if "api" in roles:
            _check_secret(settings)
        return _run_on_uvloop(_serve(settings, frozenset(roles)))
    except SettingsError as error:
        log.critical("cannot run with these settings", error=str(error))
        return 2


def _run_on_uvloop(main: Awaitable[int]) -> int:
    """Run `main` on uvloop where it is installed, else on asyncio's own event loop."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)  # type: ignore[arg-type]  # the awaitable is a coroutine


async def _serve(settings: Settings, roles: frozenset[str]) -> int:
    stop = StopSignal(signal.SIGTERM, signal.SIGINT)  # not SIGHUP: nohup ignores it, and a handler would undo that
    service = Service(settings, roles)
    await service.__aenter__()
    ended = asyncio.create_task(service.ended())
    await stop.or_end_of(ended)
    log.info("stopping", reason="signal" if stop.received else "see the next line")
    clean = await _stopped_in_time(service)
    code = _exit_code(ended)
    if not clean:
        os._exit(code)  # what hangs, such as a rollback in a silent database, would not end on a cancellation in time
    return code


async def _stopped_in_time(service: Service) -> bool:
    """Stop the service; return False where that takes too long, because aiokafka or a connection hangs."""
    _, late = await asyncio.wait({asyncio.create_task(service.__aexit__(None, None, None))}, timeout=STOP_TIMEOUT)
    if late:
        log.warning("exit without a clean stop: nothing is lost, and the group takes over after its session timeout")
    return not late


def _exit_code(ended: asyncio.Task[None]) -> int:
    error = None if ended.cancelled() or not ended.done() else ended.exception()
    if isinstance(error, SettingsError):
        raise error
    if error is not None and not isinstance(error, asyncio.CancelledError):
        log.critical("ended", error=f"{type(error).__name__}: {error}")
        return 1 if isinstance(error, Stalled) else os.EX_SOFTWARE
    log.info("stopped")
    return 0
