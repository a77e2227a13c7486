"""Laws 1 to 4 on the applier and a real PostgreSQL, compared with the model, and examples of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied
from service.stream.positions import DatabaseWentBack, Evicted, set_position
from service.sync import ProgressLicenseSyncService
from tests.support.applier import LAWS, SAMPLE_USERS, TARGETS, Partitions, fresh, one
from tests.support.model import ADVANCED, LEVELED_UP, Meant, Model
from tests.support.records import MAXIMUM, START, TOPIC, meanings, with_case
from tests.support.tables import (
    PLAYER,
    add_rows,
    assert_equal_to,
    everything,
    execute,
    history,
    licenses,
    progress,
    read,
    steps,
    trigger,
    trigger_sql,
)

_FENCE = "INSERT INTO levelsync.fences VALUES ({}, '{}', '{}', {}, 'test')"
_POSITIONS = "SELECT topic, partition, next_offset FROM levelsync.applied_offsets ORDER BY 1, 2"


def model() -> Model:
    return Model(MAXIMUM, SAMPLE_USERS)


@LAWS
@given(
    meant=meanings(), cuts=st.lists(st.integers(0, 100), max_size=6), other=st.lists(st.integers(0, 100), max_size=4)
)
async def test_any_events_in_any_batches_end_as_the_model_says(
    engine: AsyncEngine, meant: list[Meant], cuts: list[int], other: list[int]
) -> None:
    """Law 1: levels and history do not depend on how the events were batched.

    Laws 1 and 3: after a reset of the group every record is decided again, and not even a timestamp changes.
    """
    partitions, expected = await fresh(engine), model()
    await partitions.apply_all(meant, cuts)
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine)
    before = await everything(engine), await read(engine, _POSITIONS)
    partitions.ends = dict.fromkeys(TARGETS, 0)
    await partitions.apply_all(meant, other)
    assert (await everything(engine), await read(engine, _POSITIONS)) == before


@LAWS
@given(meant=meanings(), data=st.data())
async def test_the_order_changes_no_level(engine: AsyncEngine, meant: list[Meant], data: st.DataObject) -> None:
    """Law 1: any order ends in the same levels, and each history is a chain from 0 to its level."""
    shuffled = data.draw(st.permutations(meant))
    partitions, expected = await fresh(engine), model()
    await partitions.apply_all(shuffled, data.draw(st.lists(st.integers(0, 100), max_size=4)))
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine, in_order=False)


@LAWS
@given(meant=meanings(), fenced_at=st.integers(0, 500), level=st.integers(1, 8))
async def test_events_before_a_decision_never_raise_the_pair_again(
    engine: AsyncEngine, meant: list[Meant], fenced_at: int, level: int
) -> None:
    """Law 2: an old event does not raise a lowered pair, whenever it arrives. Later events apply."""
    partitions, expected = await fresh(engine), model()
    at = START + timedelta(minutes=fenced_at)
    await execute(engine, _FENCE.format(1, "PLAYER", at, level))
    expected.fences[1, "PLAYER"] = at
    await partitions.apply_all(meant)
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine)


async def decided(partitions: Partitions, level: int | None, *events: tuple[int, int]) -> Applied:
    """Apply events of one pair, (level, minute) each, to a license of this level."""
    await add_rows(partitions.engine, licenses={} if level is None else {PLAYER: level})
    return await partitions.apply(LEVELED_UP, partitions.records([one(to_level=to, minutes=at) for to, at in events]))


async def test_three_steps_in_one_batch_are_three_rises(engine: AsyncEngine, partitions: Partitions) -> None:
    await decided(partitions, 2, (3, 0), (4, 1), (5, 2))
    assert await steps(engine) == [(*PLAYER, 2, 3), (*PLAYER, 3, 4), (*PLAYER, 4, 5)]
    ((advanced_at,),) = await read(engine, "SELECT last_advanced_at FROM user_licenses")
    assert advanced_at == (START + timedelta(minutes=2)).replace(tzinfo=None)


async def test_a_created_row_rises_from_zero_and_then_further(engine: AsyncEngine, partitions: Partitions) -> None:
    applied = await decided(partitions, None, (3, 0), (5, 1))
    assert [applied.outcomes[index] for index in (0, 1)] == ["created", "applied"]
    assert await steps(engine) == [(*PLAYER, 0, 3), (*PLAYER, 3, 5)]
    assert [reason for *_, reason in await history(engine)] == [f"ProgressLeveledUp /test e{at}" for at in (0, 1)]
    (row,) = await read(engine, "SELECT * FROM user_licenses")
    begun = START.replace(tzinfo=None)
    assert (row.started_at, row.last_advanced_at) == (begun, begun + timedelta(minutes=1))
    assert (row.current_level, row.max_achieved_level) == (5, 5)


async def test_an_equal_or_lower_level_writes_nothing(engine: AsyncEngine, partitions: Partitions) -> None:
    applied = await decided(partitions, 5, (5, 0), (4, 0))
    assert [applied.outcomes[index] for index in (0, 1)] == ["equal", "ahead"]
    assert (await licenses(engine), await steps(engine)) == ({PLAYER: 5}, [])


async def test_a_missing_user_is_a_dead_letter(engine: AsyncEngine, partitions: Partitions) -> None:
    """Only where a row would be created, because an existing row proves that its user exists."""
    applied = await partitions.apply(LEVELED_UP, partitions.records([one(user=9999)]))
    assert [(letter.index, letter.reason) for letter in applied.letters] == [(0, "unknown_user")]
    assert await licenses(engine) == {}


async def test_a_refused_record_stands_alone_and_the_others_apply(engine: AsyncEngine, partitions: Partitions) -> None:
    """Law 4: the batch is split inside its transaction until only the refused record is left."""
    await execute(engine, "ALTER TABLE user_licenses ADD CONSTRAINT no_five CHECK (current_level <> 5)")
    meant = [one(to_level=level, minutes=level, user=user) for user in range(1, 41) for level in (3, 5, 4)][:120]
    meant = [m for m in meant if not (m.to_level == 5 and m.user != 17)]
    records = partitions.records([replace(m, id=f"e{i}") for i, m in enumerate(meant)])
    applied = await partitions.apply(LEVELED_UP, records)
    assert [letter.reason for letter in applied.letters] == ["refused_by_database"]
    assert "no_five" in applied.letters[0].detail
    assert await licenses(engine) == {(user, "PLAYER"): 4 for user in range(1, 41)}
    assert [step for step in await steps(engine) if step[0] == 17] == [(17, "PLAYER", 0, 3), (17, "PLAYER", 3, 4)]


async def test_a_deferred_constraint_is_found_as_well(engine: AsyncEngine, partitions: Partitions) -> None:
    """A constraint that is checked at the commit is still traced to one record."""
    refuse = "RAISE 'seven is not for %', NEW.user_id;"
    await execute(engine, *trigger_sql("AFTER INSERT OR UPDATE", refuse, "NEW.current_level = 7", at_commit=True))
    meant = [one(user=1, to_level=3), one(user=2, to_level=7, minutes=1), one(user=3, to_level=4, minutes=2)]
    applied = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert [(letter.index, letter.detail) for letter in applied.letters] == [(1, "seven is not for 2")]
    assert await licenses(engine) == {(1, "PLAYER"): 3, (3, "PLAYER"): 4}


async def test_a_row_that_a_trigger_swallows_stops_no_other(engine: AsyncEngine, partitions: Partitions) -> None:
    """Retried like a conflict with another session, it would block its partition for ever."""
    await trigger(engine, "BEFORE INSERT", "IF NEW.user_id = 7 THEN RETURN NULL; END IF; RETURN NEW;")
    meant = [one(user=user, to_level=3, minutes=user) for user in range(1, 21)]
    applied = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert [(letter.index, letter.reason) for letter in applied.letters] == [(6, "refused_by_database")]
    assert "trigger" in applied.letters[0].detail
    assert await licenses(engine) == {(user, "PLAYER"): 3 for user in range(1, 21) if user != 7}


async def test_a_new_specialization_works_without_a_restart(engine: AsyncEngine, partitions: Partitions) -> None:
    meant = one(specialization="REFEREE")
    applied = await partitions.apply(LEVELED_UP, partitions.records([meant]))
    assert [letter.reason for letter in applied.letters] == ["unknown_specialization"]
    await execute(engine, "INSERT INTO specializations (id, name, max_levels) VALUES ('REFEREE', 'Referee', 4)")
    await partitions.apply(LEVELED_UP, partitions.records([meant]))
    assert await licenses(engine) == {(1, "REFEREE"): 3}


async def test_an_empty_curriculum_is_no_reason_for_dead_letters(engine: AsyncEngine, partitions: Partitions) -> None:
    """Law 4: it is a fault of the installation."""
    await execute(engine, "TRUNCATE specializations CASCADE")
    with pytest.raises(Exception, match="specializations is empty"):
        await partitions.apply(LEVELED_UP, partitions.records([one()]))


async def test_a_raised_progress_keeps_its_xp(engine: AsyncEngine, partitions: Partitions) -> None:
    """A LicenseAdvanced changes the level and last_activity. NULL counts as no level."""
    await add_rows(engine, progress={(1, "PLAYER"): None, (2, "PLAYER"): 2})
    await execute(engine, "UPDATE specialization_progress SET total_xp = 5 WHERE student_id = 2")
    meant = [one(ADVANCED, user=1), one(ADVANCED, user=2, minutes=1), one(ADVANCED, user=3, minutes=2)]
    await partitions.apply(ADVANCED, partitions.records(meant))
    assert await progress(engine) == {(user, "PLAYER"): 3 for user in (1, 2, 3)}
    xp = await read(engine, "SELECT total_xp FROM specialization_progress ORDER BY student_id")
    assert xp == [(777,), (5,), (0,)]


async def test_events_before_apply_since_change_nothing(engine: AsyncEngine) -> None:
    partitions = await fresh(engine, apply_since=START + timedelta(minutes=5))
    applied = await partitions.apply(LEVELED_UP, partitions.records([one(), one(to_level=4, minutes=6)]))
    assert [applied.outcomes[index] for index in (0, 1)] == ["superseded", "created"]
    assert await licenses(engine) == {(1, "PLAYER"): 4}


async def test_an_evicted_consumer_writes_nothing(engine: AsyncEngine, partitions: Partitions) -> None:
    """Law 3: a position row that is higher than this consumer left it belongs to another member."""
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition(TOPIC[LEVELED_UP], 0), 50, "")
    with pytest.raises(Evicted):
        await partitions.apply(LEVELED_UP, partitions.records([one()]))
    assert await licenses(engine) == {}


@pytest.mark.parametrize(
    "change", ["UPDATE levelsync.applied_offsets SET next_offset = 0", "DELETE FROM levelsync.applied_offsets"]
)
async def test_a_database_that_went_back_in_time_is_noticed(engine: AsyncEngine, change: str) -> None:
    """Law 3: a lower or missing position row means that records have to be read again."""
    partitions = await fresh(engine)
    await partitions.apply(LEVELED_UP, partitions.records([one()]))
    await execute(engine, change)
    with pytest.raises(DatabaseWentBack):
        await partitions.apply(LEVELED_UP, partitions.records([one(to_level=5, minutes=1)]))
    assert await licenses(engine) == {(1, "PLAYER"): 3}


_REFUSES = """
    IF NEW.current_level = 5 AND NEW.user_id = 1 THEN RAISE 'five is not for 1'; END IF;
    IF NEW.current_level = 6 AND NEW.user_id = 2 THEN RETURN NULL; END IF;
    IF NEW.current_level > 4 AND NEW.user_id = 3 THEN NEW.current_level := 4; END IF;
    RETURN NEW;
"""


@pytest.fixture
async def refusing(engine: AsyncEngine) -> AsyncEngine:
    await trigger(engine, "BEFORE INSERT OR UPDATE", _REFUSES)
    return engine


class Refusing(Model):
    """The model of an application that refuses 5 for user 1, suppresses 6 for user 2, and caps user 3 at 4."""

    def _refusal(self, meant: Meant) -> str:
        reason = super()._refusal(meant)
        fenced = meant.pair in self.fences and meant.at <= self.fences[meant.pair]
        rises = meant.to_level > self.licenses.get(meant.pair, 0) and not fenced
        refused = (meant.user, meant.to_level) in {(1, 5), (2, 6)} or (meant.user == 3 and meant.to_level > 4)
        return reason or ("refused_by_database" if rises and refused else "")


@LAWS
@given(
    meant=meanings((LEVELED_UP,)),
    cuts=st.lists(st.integers(0, 100), max_size=4),
    spelling=st.sampled_from(["PLAYER", "player", "Player"]),
    fenced=st.sampled_from(["PLAYER", "player"]),
    minutes=st.integers(0, 500),
)
async def test_refusals_spellings_and_fences_in_any_batches_end_as_the_model_says(  # noqa: PLR0913, PLR0917
    refusing: AsyncEngine, meant: list[Meant], cuts: list[int], spelling: str, fenced: str, minutes: int
) -> None:
    """Refusals, licenses in another case and fences under any spelling, together."""
    engine = refusing
    partitions, expected = await fresh(engine), Refusing(MAXIMUM, SAMPLE_USERS)
    at = START.replace(hour=minutes // 60, minute=minutes % 60)
    await execute(engine, _FENCE.format(2, fenced, at, 1))
    await add_rows(engine, licenses={(4, "player"): 1})
    expected.licenses[4, "PLAYER"], expected.fences[2, "PLAYER"] = 1, at
    reasons: dict[str, str] = {}
    records = [
        with_case(record, spelling) if one.specialization == "PLAYER" and not one.bad else record
        for one, record in zip(meant, partitions.records(meant), strict=True)
    ]
    for begin, end in pairwise([0, *sorted(cuts), len(meant)]):
        if batch := records[begin:end]:
            for letter in (await partitions.apply(LEVELED_UP, batch)).letters:
                reasons[meant[begin + letter.index].id] = letter.reason.value
    for record in meant:
        expected.apply(record)
    assert {(user, name.upper()): at for (user, name), at in (await licenses(engine)).items()} == expected.licenses
    found: list[Any] = [((pair[0], pair[1].upper()), *step) for pair, *step in await history(engine)]
    assert sorted(found, key=itemgetter(0)) == sorted(expected.history, key=itemgetter(0))
    assert reasons == expected.letters


_SIDES = {LEVELED_UP: "progress_to_license", ADVANCED: "license_to_progress"}
_WRITE = {
    LEVELED_UP: """
        INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', {0})
            ON CONFLICT (student_id, specialization_id) DO UPDATE SET current_level = excluded.current_level
    """,
    ADVANCED: """
        INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
        VALUES (1, 'PLAYER', {0}, {0}, now())
            ON CONFLICT (user_id, specialization_type) DO UPDATE SET current_level = excluded.current_level
    """,
}
_DECIDED_AT = "SELECT decided_at FROM levelsync.fences WHERE user_id = 1 AND specialization = 'PLAYER'"
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("raise"), st.sampled_from(sorted(_SIDES)), st.integers(1, 8)),
        st.tuples(st.just("declare"), st.sampled_from(sorted(_SIDES)), st.integers(1, 8)),
        st.tuples(st.just("deliver"), st.just(""), st.integers(0, 100)),
    ),
    max_size=12,
)


@LAWS
@given(steps=_steps)
async def test_old_events_raise_no_declared_pair(engine: AsyncEngine, steps: list[tuple[str, str, int]]) -> None:
    """The application raises a side and publishes it, or sets a side and declares it. Events arrive in any order."""
    partitions, expected, service = await fresh(engine), model(), ProgressLicenseSyncService(engine)
    on_their_way: list[Meant] = []
    for number, (step, kind, level) in enumerate([*steps, *[("deliver", "", 0)] * len(steps)]):
        if step == "deliver":
            if on_their_way:
                meant = on_their_way.pop(level % len(on_their_way))
                await partitions.apply(meant.kind, partitions.records([meant]))
                expected.apply(meant)
            continue
        rows = expected.progress if kind == LEVELED_UP else expected.licenses
        if step == "raise" and level <= rows.get(PLAYER, 0):
            continue
        rows[PLAYER] = level
        await execute(engine, _WRITE[kind].format(level))
        if step == "raise":
            on_their_way.append(Meant(kind, 1, "PLAYER", level, datetime.now(UTC), "/test", f"e{number}"))
            continue
        await service.sync_pair(1, "PLAYER", _SIDES[kind])  # type: ignore[arg-type]
        [(decided_at,)] = await read(engine, _DECIDED_AT)
        expected.sync(PLAYER, _SIDES[kind], decided_at, f"sync {_SIDES[kind]}")
    await assert_equal_to(expected, engine)
