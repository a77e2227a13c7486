"""Bringing up what the demo plays on, and taking it down."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import service.local  # noqa: F401 - first: without this extra, the demo says so before it shows anything
from service.cli.demo.screen import Screen
from service.cli.demo.story import Demo, show_all
from service.cli.servers import local_stack
from service.process.runtime import ROLES, Service
from service.settings import Settings
from service.store.engine import make_engine
from service.stream.connection import describe_cluster
from service.stream.producer import running_producer
from service.telemetry.logs import configure_logs


async def play(folder: Path) -> bool:
    """Show the main job with everything in `folder`; say whether both tables agree in the end.

    Raises:
        Unreachable: PostgreSQL or the broker cannot run here, or nobody took a request for a reconcile.
        TimeoutError: the service did not apply what was published.
    """
    started = time.monotonic()
    screen = Screen()
    # The environment's own settings stay outside: the demo shows the same everywhere.
    settings = Settings(
        _env_file=None,
        http_port=0,
        http_host="127.0.0.1",
        log_level="WARNING",
        apply_since=None,
        reconcile_grace=timedelta(seconds=1),  # nothing here publishes later than it writes
        reconcile_every=timedelta(0),  # the demo asks for its runs itself
    )
    configure_logs(settings)
    screen.step("An empty PostgreSQL and an empty broker start; the migrations make the tables")
    async with local_stack(folder / "postgres", settings) as reached, Service(reached, ROLES - {"api"}) as service:
        await service.ready()
        screen.say(f"levelsync serves at {service.http_url} (/livez, /readyz, /metrics)")
        agree = await _tell(reached, screen, service.http_url)
    screen.say(f"Done in {time.monotonic() - started:.1f} s; PostgreSQL, broker and service are gone again.")
    return agree


async def _tell(settings: Settings, screen: Screen, url: str) -> bool:
    engine = make_engine(settings, pool_size=2)
    try:
        cluster = await describe_cluster(settings)
        async with running_producer(settings) as producer:
            return await show_all(Demo(settings, engine, producer, screen, url, cluster.id))
    finally:
        await engine.dispose()
