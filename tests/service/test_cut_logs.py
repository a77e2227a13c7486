"""A log that lost its end with its broker, and has grown past the old position since (law 3, "Positions")."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support import applying
from tests.support.apache_kafka import ApacheKafka
from tests.support.applying import rise, running
from tests.support.servers import Kafka
from tests.support.tables import licenses
from tests.support.topics import publish

pytestmark = pytest.mark.real_broker


async def test_a_log_that_was_cut_off_and_has_grown_again_is_read_from_where_it_was_cut(
    database: AsyncEngine, settings: Settings, kafka: Kafka
) -> None:
    """The offsets agree, the leader epochs do not: the broker says where the common part ends."""
    if not isinstance(kafka._server, ApacheKafka):
        pytest.skip("the broker's log is not ours to cut")
    send = settings.kafka_bootstrap_servers
    async with running(settings):
        for first in (1, 21, 41):
            await publish(send, [rise(user, 3, 0) for user in range(first, first + 20)])
        await applying.caught_up(settings, database)
    await kafka.kill()
    cut_off_the_last_batch(kafka._server.folder / "data" / "progress.leveled-up-0")
    await kafka.start()
    [first, *_] = await publish(send, [rise(user, 3, 0) for user in range(101, 141)])
    assert first == 40
    async with running(settings):
        await applying.caught_up(settings, database)
        [(epoch,)] = await applying.rows(
            database,
            "SELECT leader_epoch FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up' AND partition = 0",
        )
    assert {user for user, _ in await licenses(database)} == {*range(1, 61), *range(101, 141)}
    assert epoch > 0


def cut_off_the_last_batch(folder: Path) -> None:
    """Take a byte of it, as a crash before the disk has written does; the broker removes what is left of the batch."""
    [segment] = folder.glob("*.log")
    with segment.open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
