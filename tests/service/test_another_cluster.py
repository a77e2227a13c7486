"""docs/operations.md, "Move to another Kafka cluster": positions of one cluster say nothing about another."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from tests.support import applying
from tests.support.applying import running
from tests.support.load import Load, make_load
from tests.support.published import Scene
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker


async def _begun_anew(scene: Scene) -> bool:
    async with scene.engine.connect() as conn:
        return bool(
            (await conn.execute(text("SELECT max(next_offset) < 1000000 FROM levelsync.applied_offsets"))).scalar()
        )


async def test_on_another_cluster_every_topic_is_read_from_its_beginning(scene: Scene, log: list[Any]) -> None:
    """The rows stood higher than the new topics will ever be: nothing of them is skipped, nothing counts as lost."""
    await applying.run(
        scene.engine,
        "INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id) "
        "SELECT topic, partition, 1000000, 'the-old-cluster' "
        "FROM unnest(ARRAY['progress.leveled-up', 'license.advanced']) AS topic, generate_series(0, 3) AS partition",
    )
    await scene.publish(make_load(Load(400, 40, seed=31)))
    async with running(scene.settings):
        await eventually(lambda: _begun_anew(scene))
        await scene.assert_ended()
        await applying.caught_up(scene.settings, scene.engine)
    said = {line["event"] for line in log}
    assert "positions start anew" in said
    assert "retention took records unread" not in said
