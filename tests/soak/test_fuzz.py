"""Every one of hundreds of thousands of fuzzed records ends as an effect or as a dead letter."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Reason
from service.core.decode import decode
from service.core.outcomes import DeadLetter, LevelEvent
from service.settings import Settings
from tests.support.fuzzing import KINDS, fuzz
from tests.support.load import PARTITIONS, Slot, new_seed
from tests.support.model import Meant, Model
from tests.support.process import Make
from tests.support.published import Setup, assert_same
from tests.support.records import MAXIMUM, TOPIC
from tests.support.tables import history, licenses, progress
from tests.support.topics import fill

pytestmark = pytest.mark.soak
DECODED, SERVED, USERS = 200_000, 20_000, 200
FROM_DECODE = {Reason.MALFORMED, Reason.INVALID, Reason.BAD_TIME, Reason.UNKNOWN_TYPE}


def test_two_hundred_thousand_records_are_events_or_dead_letters() -> None:
    """`decode` raises nothing and keeps the order. The fuzz reaches every reason."""
    rng, seen = Random(new_seed()), Counter[str]()  # noqa: S311 - no secret
    for _ in range(DECODED // 1000):
        decoded = decode([fuzz(rng, rng.choice(KINDS)) for _ in range(1000)])
        assert [item.index for item in decoded] == list(range(1000))
        assert all(isinstance(item, LevelEvent | DeadLetter) for item in decoded)
        seen.update(item.reason if isinstance(item, DeadLetter) else "event" for item in decoded)
    assert {"event", *FROM_DECODE} <= seen.keys(), seen
    assert min(seen.values()) > DECODED // 1000, seen


@pytest.mark.real_broker
async def test_twenty_thousand_records_leave_an_effect_or_a_dead_letter(
    settings: Settings, topics: list[str], levelsync_process: Make
) -> None:
    """The service stays up, and its tables and dead letters are the model's."""
    assert topics
    slots = _fuzzed(Random(new_seed()))  # noqa: S311 - no secret
    process = levelsync_process(settings)
    async with Setup(settings, USERS) as setup:
        await process.start()
        first = process.pid
        await fill(settings.kafka_bootstrap_servers, slots)
        setup.slots = {slot: [] for slot in slots}  # their effects are not known beforehand
        await setup.wait_applied(SERVED)
        await _assert_model(setup, slots)
    assert process.pid == first
    assert (await process.get("/livez"))[0] == 200
    assert await process.terminate() == 0


def _fuzzed(rng: Random) -> dict[Slot, list[ConsumerRecord]]:
    every = [(kind, partition) for kind in KINDS for partition in range(PARTITIONS)]
    each = range(SERVED // len(every))
    return {(TOPIC[kind], partition): [fuzz(rng, kind, partition) for _ in each] for kind, partition in every}


async def _assert_model(setup: Setup, slots: dict[Slot, list[ConsumerRecord]]) -> None:
    model, letters = Model(MAXIMUM, set(range(1, USERS + 1))), {}
    for slot, records in slots.items():
        for offset, (record, item) in enumerate(zip(records, decode(records), strict=True)):
            reason = item.reason if isinstance(item, DeadLetter) else _apply(model, slot, item)
            if reason:
                letters[*slot, offset] = (str(reason), record.value)
    assert_same("dead letters", (await setup.letters()).items(), letters.items())
    await _assert_levels(setup.engine, model)


def _apply(model: Model, slot: Slot, event: LevelEvent) -> str:
    """Apply an event to the model; returns why the model refuses it, or ''."""
    kind = next(kind for kind in KINDS if TOPIC[kind] == slot[0])
    _, source, name = event.origin.split(" ", 2)
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.occurred_us)
    meant = Meant(kind, event.user_id, event.specialization.upper(), event.to_level, at, source, name)
    refused = model._refusal(meant)
    if not refused:
        model.apply(meant)
    return refused


async def _assert_levels(engine: AsyncEngine, model: Model) -> None:
    """Compare levels, and how far each history goes: a user's records are in many partitions here."""
    assert_same("licenses", (await licenses(engine)).items(), model.licenses.items())
    assert_same("progress", (await progress(engine)).items(), model.progress.items())
    tops = {pair: to_level for pair, _, to_level, _, _ in await history(engine)}
    assert_same("history", tops.items(), model.licenses.items())
