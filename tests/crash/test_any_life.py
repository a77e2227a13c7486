"""Any mix of events, bad records, restarts, kills, offset resets and restored databases, against the model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from service.settings import Settings
from tests.support.killing import Life
from tests.support.load import new_seed
from tests.support.process import LevelsyncProcess
from tests.support.published import Scene
from tests.support.servers import Postgres

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
Make = Callable[..., LevelsyncProcess]
USERS = 1_000
AFTER_EVERY_EVENT, BEFORE_THEM = timedelta(hours=1), -timedelta(days=1)


async def live(settings: Settings, postgres: Postgres, make: Make, rounds: int, records: int) -> None:
    now = datetime.now(UTC)
    fences = {(user, "PLAYER"): now + (AFTER_EVERY_EVENT if user % 20 else BEFORE_THEM) for user in range(1, USERS, 10)}
    async with Scene(settings, USERS, fences) as scene:
        life = Life(scene, postgres, make, Random(new_seed()))  # noqa: S311 - no secret
        try:
            await life.run(rounds, records)
        finally:
            await life.end()


async def test_any_life_ends_in_the_models_tables(
    settings: Settings, postgres: Postgres, levelsync_process: Make
) -> None:
    """Eight episodes, in any order."""
    await live(settings, postgres, levelsync_process, rounds=1, records=2_000)


@pytest.mark.soak
async def test_a_long_life_ends_in_the_models_tables(
    settings: Settings, postgres: Postgres, levelsync_process: Make
) -> None:
    """The same for thirty-two episodes and more records."""
    await live(settings, postgres, levelsync_process, rounds=4, records=4_000)
