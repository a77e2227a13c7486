"""PostgreSQL is away for ten minutes, and Kafka is away for ten minutes (law 4), each for a service of its own.

Ten minutes are longer than the five after which Kafka's client leaves its group when nobody polls.
LEVELSYNC_TEST_OUTAGE_SECONDS shortens both.
"""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.killing import Outage
from tests.support.load import Load, make_load, new_seed
from tests.support.process import Make
from tests.support.published import Setup
from tests.support.servers import Kafka, Postgres, make_template

pytestmark = [pytest.mark.soak, pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
USERS = 5_000
MOST_MEMORY_MORE = 25_000_000
"""Bytes: less than the waiting records, or the retries of ten minutes, would take in memory."""
WITHIN_SECONDS = 15.0


async def live_through(outage: Outage, seed: int, *, kafka_is_there: bool) -> None:
    load = make_load(Load(50_000, USERS, seed))
    meanwhile = load[22_000:40_000] if kafka_is_there else []
    await outage.run(load[:20_000], load[20_000:22_000], meanwhile, load[40_000:])
    print(outage)  # noqa: T201 - the figures are the point of a run with -s
    assert max(outage.memory) <= outage.memory_before + MOST_MEMORY_MORE, "memory was not flat"
    assert outage.livez == {200}, "an outage is not a reason to restart"
    assert outage.readyz <= {200, 503} and 503 in outage.readyz, "nobody was told"  # noqa: PT018 - one fact
    assert outage.back_after <= WITHIN_SECONDS, "work did not go on within seconds"
    assert await outage.process.terminate() == 0


async def test_ten_minutes_without_postgresql_or_kafka(
    settings: Settings,
    kafka: Kafka,
    own_kafka: Kafka,
    own_postgres: Postgres,
    levelsync_process: Make,
) -> None:
    """No record is lost or becomes a dead letter, the consumers come back to their group, and memory stays flat."""
    url = own_postgres.url_of(await make_template(own_postgres))
    without_postgresql = settings.model_copy(
        update={"database_url": SecretStr(url), "kafka_bootstrap_servers": own_kafka.bootstrap_servers}
    )
    seed = new_seed()
    async with Setup(without_postgresql, USERS) as one, Setup(settings, USERS) as other, asyncio.TaskGroup() as tasks:
        losing_postgresql = Outage(own_postgres, levelsync_process(without_postgresql), one)
        losing_kafka = Outage(kafka, levelsync_process(settings), other)
        tasks.create_task(live_through(losing_postgresql, seed, kafka_is_there=True))
        tasks.create_task(live_through(losing_kafka, seed + 1, kafka_is_there=False))
