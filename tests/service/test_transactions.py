"""A publisher that uses Kafka's transactions: aborted records have no effect, and markers hold no position back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support import applying
from tests.support.applying import running
from tests.support.load import Load, Slot, by_slot, make_load
from tests.support.model import ADVANCED, Meant, Model
from tests.support.records import MAXIMUM, TOPIC, as_sent
from tests.support.tables import assert_equal_to
from tests.support.topics import send

pytestmark = pytest.mark.real_broker
ONLY_ABORTED = (TOPIC[ADVANCED], 3)


async def test_only_what_was_committed_applies_and_the_ends_are_reached_past_markers(
    database: AsyncEngine, settings: Settings
) -> None:
    """Law 3: one partition contains only aborted records."""
    slots = by_slot(make_load(Load(400, 50, seed=3, bad=0.05)))
    model = Model(MAXIMUM, set(range(1, 201)))
    async with applying.transactional(settings) as producer, running(settings):
        for number, (slot, meant) in enumerate(sorted(slots.items())):
            half = len(meant) // 2
            for part, commit in ((meant[:half], number % 2 == 1), (meant[half:], number % 2 == 0)):
                commit = commit and slot != ONLY_ABORTED  # noqa: PLW2901 - one exception
                await transact(producer, slot, part, commit=commit)
                for one in part if commit else ():
                    model.apply(one)
        end = await applying.caught_up(settings, database)
    assert end[TopicPartition(*ONLY_ABORTED)] == len(slots[ONLY_ABORTED]) + 2  # markers are offsets, too
    await assert_equal_to(model, database)


async def transact(producer: AIOKafkaProducer, slot: Slot, meant: Sequence[Meant], *, commit: bool) -> None:
    """Publish records to one partition in one transaction."""
    await producer.begin_transaction()
    for one in meant:
        await (await send(producer, as_sent(one, slot[1])))
    await (producer.commit_transaction if commit else producer.abort_transaction)()
