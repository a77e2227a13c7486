"""Law 5 under a live load: rows are committed first, and their events follow within two seconds in random order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ProgressLeveledUp
from service.process.runtime import Service
from service.settings import Settings
from tests.support.runs import DRIFT, reconcile

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
OUTBOX_DELAY = 2.0
RISES, SCAN_SECONDS = 1400, 5.0
_RAISE = text("""
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp)
    VALUES (:user, 'PLAYER', :level, 0)
        ON CONFLICT (student_id, specialization_id) DO UPDATE SET current_level = excluded.current_level
""")


@pytest.fixture
async def running(settings: Settings, topics: list[str]) -> AsyncIterator[Service]:  # noqa: ARG001 - first the topics
    """Every role in this process. The grace time exceeds the publisher's delay, as it must."""
    chosen = settings.model_copy(update={"reconcile_grace": timedelta(seconds=3), "reconcile_every": timedelta(0)})
    async with Service(chosen) as service:
        await asyncio.wait_for(service.ready(), 60)
        yield service


class Application:
    """Raises progress, and publishes each rise within two seconds unless it is lost."""

    def __init__(self, engine: AsyncEngine, settings: Settings, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)  # noqa: S311 - a repeatable load, not a secret
        self.producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
        self.levels: dict[int, int] = {}
        self.late: set[asyncio.Task[Any]] = set()

    async def raise_one(self, user: int, *, lost: bool = False) -> None:
        self.levels[user] = level = self.levels.get(user, 1) + 1
        async with self.engine.begin() as conn:
            await conn.execute(_RAISE, {"user": user, "level": level})
        if not lost:
            task = asyncio.create_task(self._publish(user, level, self.random.uniform(0, OUTBOX_DELAY)))
            self.late.add(task)
            task.add_done_callback(self.late.discard)

    async def _publish(self, user: int, level: int, delay: float) -> None:
        await asyncio.sleep(delay)  # the delay of the publisher's outbox
        record = ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=level).to_kafka()
        await self.producer.send_and_wait(record.topic, record.value, record.key, headers=record.headers)

    async def live(self, seconds: float) -> None:
        """Raise all users to the top, one level at a time, in about `seconds`."""
        while len(self.levels) < 200 or min(self.levels.values()) < 8:
            await self.raise_one(self.random.choice([u for u in range(1, 201) if self.levels.get(u, 1) < 8]))
            await asyncio.sleep(seconds / RISES)  # the rate of the load


@pytest.fixture
async def application(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Application]:
    """A publisher, on tables that agree."""
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE user_licenses, specialization_progress CASCADE"))
    made = Application(engine, settings, seed=7)
    await made.producer.start()
    yield made
    await asyncio.gather(*made.late)
    await made.producer.stop()


async def scan_beside_a_load(engine: AsyncEngine, application: Application, scans: int) -> None:
    """Run scans one after another; check that none finds drift."""
    load = asyncio.create_task(application.live(scans * SCAN_SECONDS))
    try:
        for _ in range(scans):
            counts = await reconcile(engine)
            assert {kind: counts[kind] for kind in DRIFT} == dict.fromkeys(DRIFT, 0), counts
            assert counts["unconfirmed"] == 0
    finally:
        load.cancel()
        await asyncio.wait({load})


@pytest.mark.usefixtures("running")
async def test_five_scans_beside_a_live_load_find_nothing(engine: AsyncEngine, application: Application) -> None:
    await scan_beside_a_load(engine, application, scans=5)


@pytest.mark.soak
@pytest.mark.usefixtures("running")
async def test_fifty_scans_beside_a_live_load_find_nothing(engine: AsyncEngine, application: Application) -> None:
    await scan_beside_a_load(engine, application, scans=50)


@pytest.mark.usefixtures("running")
async def test_a_hundred_lost_events_are_exactly_what_is_found(engine: AsyncEngine, application: Application) -> None:
    for user in range(1, 201):
        await application.raise_one(user, lost=user % 2 == 0)
    await asyncio.gather(*application.late)
    found = await reconcile(engine, direction="highest", dry_run=False, force=True)
    assert sum(found[kind] for kind in DRIFT) == found["healed"] == 100
    left = await reconcile(engine)
    assert sum(left[kind] for kind in DRIFT) == 0
