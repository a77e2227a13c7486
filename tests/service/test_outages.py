"""PostgreSQL or Kafka is away for seconds while events are published. tests/soak has outages of ten minutes."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.killing import Outage
from tests.support.load import Load, make_load
from tests.support.process import Make
from tests.support.published import Setup
from tests.support.servers import Kafka, Postgres, make_template

pytestmark = [pytest.mark.real_broker, pytest.mark.soak, pytest.mark.usefixtures("topics")]
AWAY = {"postgresql": 6.0, "kafka": 12.0}
"""Seconds. Kafka is away for longer than a member's session of ten seconds."""
BACK_WITHIN = 10.0


@pytest.mark.parametrize("component", AWAY)
async def test_outages_lose_nothing_make_no_dead_letter_and_end_by_themselves(
    component: str, settings: Settings, kafka: Kafka, own_postgres: Postgres, levelsync_process: Make
) -> None:
    """Law 4: during an outage /readyz answers 503 with the reason and /livez 200. Work goes on seconds after it."""
    if not kafka.can_restart:
        pytest.skip("the broker is not ours to stop")
    url = own_postgres.url_of(await make_template(own_postgres))
    there = settings.model_copy(update={"database_url": SecretStr(url)})
    process, load = levelsync_process(there), make_load(Load(5000, 100, seed=16))
    async with Setup(there, 100) as setup:
        outage = Outage(kafka if component == "kafka" else own_postgres, process, setup, AWAY[component])
        meanwhile = load[2_000:3_000] if component == "postgresql" else []
        await outage.run(load[:1_000], load[1_000:2_000], meanwhile, load[3_000:])
        assert await setup.letters() == {}
    assert outage.livez == {200}
    assert outage.problems
    assert [said for said in outage.problems if component not in said] == []
    assert max(outage.back_after, outage.ready_after) <= BACK_WITHIN
    assert component == "kafka" or "database_unavailable" in process.output
