"""A compacted topic keeps the last event of a user only, and loses those of the user's other specializations."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from service.cli.doctor import Verdict
from service.cli.doctor_checks import POLICY, kafka_findings
from service.process.runtime import Service
from service.settings import Settings
from service.stream.topics import compacted_topics, ensure_topics
from tests.support import applying
from tests.support.waiting import eventually

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
COMPACT = "license.advanced"
SET_ON_THE_TOPIC = 1
"""Kafka's number for where a value comes from; 5 is the broker's default."""


async def set_policy(settings: Settings, policy: str) -> None:
    async with applying.admin(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, COMPACT, {"cleanup.policy": policy})])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_compacted_topic_is_a_fault_of_the_installation(settings: Settings, policy: str) -> None:
    """`serve` waits until it is repaired, and says which topic it is; `doctor` fails."""
    await set_policy(settings, policy)
    async with Service(settings, frozenset({"apply"})) as service:
        await eventually(lambda: names(service, f"Kafka compacts the topics {COMPACT}"))
        [finding] = [one for one in await kafka_findings(settings) if one.check == POLICY]
        assert (finding.verdict, finding.detail) == (Verdict.FAIL, f"compacted: {COMPACT}")
        await set_policy(settings, "delete")
        await asyncio.wait_for(service.ready(), 30)
    [finding] = [one for one in await kafka_findings(settings) if one.check == POLICY]
    assert finding.verdict is Verdict.PASS


async def names(service: Service, words: str) -> bool:
    return words in str(await applying.problems(service))


async def test_topics_that_are_created_say_that_they_are_not_compacted(settings: Settings) -> None:
    """Whatever the broker's default is."""
    async with applying.admin(settings) as client:
        await client.delete_topics([COMPACT])
        await eventually(lambda: is_gone(settings))
        assert await ensure_topics(settings) == []
        [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, COMPACT, None)])
    [(_, _, _, _, entries)] = answer.resources
    [(_, value, _, source, *_)] = [entry for entry in entries if entry[0] == "cleanup.policy"]
    assert (value, source) == ("delete", SET_ON_THE_TOPIC)
    assert await compacted_topics(settings) == ([], [])


async def is_gone(settings: Settings) -> bool:
    async with applying.admin(settings) as client:
        return COMPACT not in {topic["topic"] for topic in await client.describe_topics()}
