"""The clients that a reconciler keeps, when their broker or topics change."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaError

from events import LICENSE_ADVANCED_TOPIC, PROGRESS_LEVELED_UP_TOPIC
from service.reconcile.confirm import KafkaTopics
from service.settings import Settings
from tests.support.servers import Kafka
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]


async def test_the_ends_are_right_again_after_the_broker_was_away(settings: Settings, kafka: Kafka) -> None:
    """While the broker is away a question fails. Afterwards no old answer is returned."""
    if not kafka.can_restart:
        pytest.skip("the broker is not ours to stop")
    async with KafkaTopics(settings) as topics:
        assert await _records(topics) == 0
        await kafka.kill()
        with pytest.raises((KafkaError, OSError)):
            await topics.read()
        await kafka.start()
        await publish(kafka.bootstrap_servers, [(PROGRESS_LEVELED_UP_TOPIC, b"1", b"x")] * 3)
        assert await eventually(lambda: _answered(topics), 30) == 3


async def test_the_ends_are_those_of_recreated_topics(settings: Settings, kafka: Kafka) -> None:
    """Metadata are read for every question, so the number of partitions may change."""
    async with KafkaTopics(settings) as topics:
        await publish(kafka.bootstrap_servers, [(LICENSE_ADVANCED_TOPIC, b"1", b"x")] * 5)
        assert await _records(topics) == 5
        await kafka.fresh_topics(partitions=6)
        assert len((await topics.read()).ends) == 12
        await publish(kafka.bootstrap_servers, [(LICENSE_ADVANCED_TOPIC, b"1", b"x")] * 2)
        assert await _records(topics) == 2


async def _answered(topics: KafkaTopics) -> int:
    try:
        return await _records(topics)
    except (KafkaError, OSError):
        return 0


async def _records(topics: KafkaTopics) -> int:
    return sum((await topics.read()).ends.values())
