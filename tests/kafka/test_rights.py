"""The rights that deploy/kafka/acls.sh and deploy/postgresql/rights.sql grant suffice for everything that is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.protocol.admin import DeleteAclsRequest
from pydantic import SecretStr

from service.checks import Verdict
from service.cli.doctor import examine
from service.process.runtime import Service
from service.settings import Settings
from service.stream.topics import missing_rights
from tests.support import application
from tests.support.apache_kafka import GuardedKafka
from tests.support.process import environment, levelsync
from tests.support.roles import change_acl, grant, roles
from tests.support.topics import Record, publish, raised
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
_TOPIC, _PREFIXED, _WRITE, _ALLOW = 2, 4, 4, 3


@pytest.fixture
async def restricted(settings: Settings, guarded_kafka: GuardedKafka, database_url: str) -> AsyncIterator[Settings]:
    """Settings of the runtime role and of a Kafka user with the rights of acls.sh."""
    async with roles(database_url) as made:
        values = guarded_kafka.access | {
            "database_url": SecretStr(made.runtime),
            "kafka_create_topics": False,
            "reconcile_grace": settings.reconcile_grace / 10,
        }
        given = settings.model_copy(update=values)
        await asyncio.to_thread(grant, guarded_kafka, given.kafka_group_id)
        yield given


async def test_everything_works_with_the_rights_of_both_files(
    restricted: Settings, guarded_kafka: GuardedKafka, database_url: str
) -> None:
    """Events, dead letters, a replay, drift, a sync, a run that heals, erasing, and every check of doctor."""
    given = environment(restricted)
    async with Service(restricted) as service:
        await service.ready()
        await publish(
            guarded_kafka.bootstrap_servers, [raised(1), raised(2), Record("progress.leveled-up", b"1", b"no")]
        )
        await eventually(lambda: _applied(database_url))
        drift = "UPDATE specialization_progress SET current_level = 1 WHERE student_id = 1"
        await application.execute(database_url, drift)
        for command, code in (
            (("drift",), 1),
            (("dead-letters", "replay", "--reason", "malformed"), 1),
            (("reconcile", "--execute", "--direction", "highest"), 0),
            (("drift",), 0),
            (("sync", "2", "--specialization", "PLAYER"), 0),
            (("runs",), 0),
            (("erase", "3", "--yes"), 0),
        ):
            run = await asyncio.to_thread(levelsync, *command, env=given)
            assert run.returncode == code, (command, run.stdout, run.stderr)
        assert service.health.ready, service.health.problems
        failed = [one for one in await examine(restricted) if one.verdict is Verdict.FAIL and one.check != "Settings"]
        assert failed == []


async def test_doctor_names_what_is_missing_in_kafka(restricted: Settings, guarded_kafka: GuardedKafka) -> None:
    """It asks the broker for its user's rights, and writes nothing."""
    assert await missing_rights(restricted) == []
    await change_acl(guarded_kafka, DeleteAclsRequest, (_TOPIC, "sync.", _PREFIXED, _WRITE, _ALLOW))
    other = restricted.model_copy(update={"kafka_group_id": "another"})
    missing = await eventually(lambda: _missing(other))
    assert missing == [
        "Write on topic sync.reconcile-requested",
        "Write on topic sync.reconcile-chunks",
        "Write on topic sync.reconcile-completed",
        "Write on topic sync.level-synced",
        "Read on group another",
        "Read on group another-reconcile",
    ]


async def _missing(settings: Settings) -> list[str]:
    found = await missing_rights(settings)
    assert found is not None
    assert "Write on topic sync.reconcile-chunks" in found
    return found


async def _applied(url: str) -> bool:
    risen = "user_licenses WHERE specialization_type = 'PLAYER' AND current_level >= 7 AND user_id IN (1, 2)"
    counts = [await application.value(url, f"SELECT count(*) FROM {of}") for of in (risen, "levelsync.dead_letters")]
    return counts == [2, 1]
