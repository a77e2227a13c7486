"""`kill -9` of the service and of its servers, restores and rewinds, compared with the model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.killing import Life, start_and_kill
from tests.support.load import Load, make_load, new_seed
from tests.support.model import LEVELED_UP
from tests.support.process import Make
from tests.support.published import Setup
from tests.support.servers import Kafka, Postgres, Restartable, make_template

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]


async def test_a_kill_during_a_drain_ends_as_the_model_says(settings: Settings, levelsync_process: Make) -> None:
    """With the default settings. The group waits for the dead member and goes on."""
    seed = new_seed()
    process = levelsync_process(settings)
    async with Setup(settings, users=4_000) as setup:
        await setup.publish(make_load(Load(24_000, 4_000, seed, kinds=(LEVELED_UP,))))
        await start_and_kill(process, setup, Random(seed), share=0.5)  # noqa: S311 - no secret
        assert await setup.applied() < setup.published
        await process.start(ready=False)
        await setup.assert_ended()
    assert await process.terminate() == 0


OF_A_LIFE = 1_000
AFTER_EVERY_EVENT, BEFORE_THEM = timedelta(hours=1), -timedelta(days=1)


@pytest.mark.soak
@pytest.mark.parametrize(("rounds", "records"), [(1, 2_000), (4, 4_000)], ids=["8 episodes", "32 episodes"])
async def test_any_life_ends_in_the_models_tables(
    settings: Settings, postgres: Postgres, levelsync_process: Make, rounds: int, records: int
) -> None:
    """Kills, stops, rewinds and restores, in any order."""
    now = datetime.now(UTC)
    users = range(1, OF_A_LIFE, 10)
    fences = {(user, "PLAYER"): now + (AFTER_EVERY_EVENT if user % 20 else BEFORE_THEM) for user in users}
    async with Setup(settings, OF_A_LIFE, fences) as setup:
        life = Life(setup, postgres, levelsync_process, Random(new_seed()))  # noqa: S311 - no secret
        try:
            await life.run(rounds, records)
        finally:
            await life.end()


USERS = 2_000


async def drain_over_a_kill(settings: Settings, server: Restartable, make: Make) -> None:
    """Kill the server while a process drains, start it again, and publish the rest. The process stays the same."""
    settings = settings.model_copy(update={"batch_max_records": 100})
    process, meant = make(settings), make_load(Load(12_000, USERS, new_seed(), bad=0.01))
    async with Setup(settings, USERS) as setup:
        await setup.publish(meant[:8_000])
        await process.start()
        first = process.pid
        await setup.wait_applied(2_000)
        await server.kill()
        await server.start()
        await setup.publish(meant[8_000:])
        await setup.assert_ended()
    assert process.pid == first
    assert await process.terminate() == 0


async def test_a_killed_postgresql_loses_no_record(
    settings: Settings, own_postgres: Postgres, levelsync_process: Make
) -> None:
    """The batch is retried until it is written. It causes no dead letter."""
    url = own_postgres.url_of(await make_template(own_postgres))
    there = settings.model_copy(update={"database_url": SecretStr(url)})
    await drain_over_a_kill(there, own_postgres, levelsync_process)


async def test_a_killed_broker_loses_no_record(settings: Settings, kafka: Kafka, levelsync_process: Make) -> None:
    if not kafka.can_restart:
        pytest.skip("the broker is not ours to kill")
    await drain_over_a_kill(settings, kafka, levelsync_process)
