"""`kill -9` of PostgreSQL and of Kafka under load: the service stays up, and goes on when they are back (law 4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.load import Load, make_load, new_seed
from tests.support.model import Meant
from tests.support.process import LevelsyncProcess
from tests.support.published import Scene
from tests.support.servers import Kafka, Postgres, make_template

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
Make = Callable[..., LevelsyncProcess]
USERS = 2_000


def load() -> list[Meant]:
    return make_load(Load(12_000, USERS, new_seed(), bad=0.01))


async def test_a_killed_postgresql_loses_no_record(
    settings: Settings, own_postgres: Postgres, levelsync_process: Make
) -> None:
    """The batch in hand is tried again until it stands; it makes no dead letter."""
    url = own_postgres.url_of(await make_template(own_postgres))
    settings = settings.model_copy(update={"database_url": SecretStr(url), "batch_max_records": 100})
    process, meant = levelsync_process(settings), load()
    async with Scene(settings, USERS) as scene:
        await scene.publish(meant[:8_000])
        await process.start()
        first = process.pid
        await scene.wait_applied(2_000)
        await own_postgres.kill()
        await own_postgres.start()
        await scene.publish(meant[8_000:])
        await scene.assert_ended()
    assert process.pid == first
    assert await process.terminate() == 0


async def test_a_killed_broker_loses_no_record(settings: Settings, kafka: Kafka, levelsync_process: Make) -> None:
    """The consumers find the broker and their group again by themselves."""
    if not kafka.can_restart:
        pytest.skip("the broker is not ours to kill")
    settings = settings.model_copy(update={"batch_max_records": 100})
    process, meant = levelsync_process(settings), load()
    async with Scene(settings, USERS) as scene:
        await scene.publish(meant[:8_000])
        await process.start()
        first = process.pid
        await scene.wait_applied(2_000)
        await kafka.kill()
        await kafka.start()
        await scene.publish(meant[8_000:])
        await scene.assert_ended()
    assert process.pid == first
    assert await process.terminate() == 0
