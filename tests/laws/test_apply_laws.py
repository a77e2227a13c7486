"""Laws 1 to 4 on the applier and a real PostgreSQL: any events, any batches, against the model."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.stream.positions import DatabaseWentBack, Evicted, set_position
from tests.support.applier import LAWS, SAMPLE_USERS, TARGETS, fresh, one
from tests.support.model import ADVANCED, LEVELED_UP, Meant, Model
from tests.support.records import MAXIMUM, START, TOPIC, meanings, with_case
from tests.support.tables import assert_equal_to, history, licenses, progress


def model() -> Model:
    return Model(MAXIMUM, SAMPLE_USERS)


@LAWS
@given(meant=meanings(), cuts=st.lists(st.integers(0, 100), max_size=6))
async def test_any_events_in_any_batches_end_as_the_model_says(
    engine: AsyncEngine, meant: list[Meant], cuts: list[int]
) -> None:
    """Law 1: levels and history are the same however the events were batched."""
    partitions, expected = await fresh(engine), model()
    await partitions.apply_all(meant, cuts)
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine)


@LAWS
@given(meant=meanings(), data=st.data())
async def test_the_order_changes_no_level(engine: AsyncEngine, meant: list[Meant], data: st.DataObject) -> None:
    """Law 1: any order ends in the same levels, and the history is a chain from 0 to each of them."""
    shuffled = data.draw(st.permutations(meant))
    partitions, expected = await fresh(engine), model()
    await partitions.apply_all(shuffled, data.draw(st.lists(st.integers(0, 100), max_size=4)))
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine, in_order=False)


@LAWS
@given(meant=meanings(), cuts=st.lists(st.integers(0, 100), max_size=4))
async def test_a_replay_from_the_beginning_changes_no_row(
    engine: AsyncEngine, meant: list[Meant], cuts: list[int]
) -> None:
    """Laws 1 and 3: a group reset decides every record again and writes nothing, timestamps included."""
    partitions = await fresh(engine)
    await partitions.apply_all(meant)
    before = await _everything(engine)
    partitions.ends = dict.fromkeys(TARGETS, 0)
    await partitions.apply_all(meant, cuts)
    assert await _everything(engine) == before


@LAWS
@given(meant=meanings(), fenced_at=st.integers(0, 500), level=st.integers(1, 8))
async def test_events_before_a_decision_never_raise_the_pair_again(
    engine: AsyncEngine, meant: list[Meant], fenced_at: int, level: int
) -> None:
    """Law 2: a lowered pair stays lowered for old events, whenever they come; later ones apply."""
    partitions, expected = await fresh(engine), model()
    at = START + timedelta(minutes=fenced_at)
    async with engine.begin() as conn:
        values = {"at": at, "level": level}
        await conn.execute(text("INSERT INTO levelsync.fences VALUES (1, 'PLAYER', :at, :level, 'test')"), values)
    expected.fences[1, "PLAYER"] = at
    await partitions.apply_all(meant)
    for record in meant:
        expected.apply(record)
    await assert_equal_to(expected, engine)


async def _everything(engine: AsyncEngine) -> list[object]:
    tables = ("public.user_licenses", "public.specialization_progress", "public.license_progressions")
    own = ("levelsync.applied_offsets", "levelsync.dead_letters")
    async with engine.connect() as conn:
        found: list[object] = []
        for table in (*tables, *own):
            order = "topic, partition" if "applied" in table else "id"
            columns = "topic, partition, next_offset" if "applied" in table else "*"
            rows = await conn.execute(text(f"SELECT {columns} FROM {table} ORDER BY {order}"))
            found += [tuple(row) for row in rows]
        return found


async def test_a_refused_record_stands_alone_and_its_neighbours_apply(engine: AsyncEngine) -> None:
    """Law 4: the batch is split inside its transaction until the record that the database refuses stands alone."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE user_licenses ADD CONSTRAINT no_five CHECK (current_level <> 5)"))
    meant = [one(to_level=level, minutes=level, user=user) for user in range(1, 41) for level in (3, 5, 4)][:120]
    meant = [m for m in meant if not (m.to_level == 5 and m.user != 17)]
    records = partitions.records([replace(m, id=f"e{i}") for i, m in enumerate(meant)])
    applied = await partitions.apply(LEVELED_UP, records)
    assert [letter.reason for letter in applied.letters] == ["refused_by_database"]
    assert "no_five" in applied.letters[0].detail
    assert await licenses(engine) == {(user, "PLAYER"): 4 for user in range(1, 41)}
    steps = [(pair, a, b) for pair, a, b, _, _ in await history(engine) if pair[0] == 17]
    assert steps == [((17, "PLAYER"), 0, 3), ((17, "PLAYER"), 3, 4)]


async def test_a_deferred_constraint_is_found_as_well(engine: AsyncEngine) -> None:
    """A constraint that speaks only at the commit still points at one record."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(
            text("""
            CREATE FUNCTION no_seven() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.current_level = 7 THEN RAISE EXCEPTION 'seven is not for %', NEW.user_id; END IF;
                  RETURN NULL; END $$
            """)
        )
        await conn.execute(
            text("""
            CREATE CONSTRAINT TRIGGER no_seven AFTER INSERT OR UPDATE ON user_licenses
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no_seven()
            """)
        )
    meant = [one(user=1, to_level=3), one(user=2, to_level=7, minutes=1), one(user=3, to_level=4, minutes=2)]
    applied = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert [(letter.index, letter.detail) for letter in applied.letters] == [(1, "seven is not for 2")]
    assert await licenses(engine) == {(1, "PLAYER"): 3, (3, "PLAYER"): 4}


async def test_a_row_that_a_trigger_swallows_stands_alone_and_its_neighbours_apply(engine: AsyncEngine) -> None:
    """An insert that makes no row looks like somebody else's row; tried for ever, it would block its partition."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(
            text("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        )
        await conn.execute(
            text("""
            CREATE TRIGGER not_seven BEFORE INSERT ON user_licenses
            FOR EACH ROW WHEN (new.user_id = 7) EXECUTE FUNCTION swallow()
            """)
        )
    meant = [one(user=user, to_level=3, minutes=user) for user in range(1, 21)]
    applied = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert [(letter.index, letter.reason) for letter in applied.letters] == [(6, "refused_by_database")]
    assert "trigger" in applied.letters[0].detail
    assert await licenses(engine) == {(user, "PLAYER"): 3 for user in range(1, 21) if user != 7}


async def test_refusals_of_twenty_users_are_no_dead_letters(engine: AsyncEngine) -> None:
    """Law 4: a constraint that refuses everybody is a fault of the installation: nothing of the batch stands."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE user_licenses ADD CONSTRAINT none CHECK (current_level < 0) NOT VALID"))
    meant = [one(user=user, minutes=user) for user in range(1, 31)]
    with pytest.raises(Exception, match="20 users in a row"):
        await partitions.apply(LEVELED_UP, partitions.records(meant))
    async with engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM levelsync.dead_letters"))).scalar_one() == 0


async def test_a_license_in_another_case_is_the_pairs_license(engine: AsyncEngine) -> None:
    """No second license is made beside one that was written as 'player'."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(
            text("""
            INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
            VALUES (1, 'player', 2, 2, now())
            """)
        )
    await partitions.apply(LEVELED_UP, [with_case(record, "plAYer") for record in partitions.records([one()])])
    assert await licenses(engine) == {(1, "player"): 3}


async def test_a_new_specialization_works_without_a_restart(engine: AsyncEngine) -> None:
    """Specializations are data."""
    partitions = await fresh(engine)
    meant = one(specialization="REFEREE")
    applied = await partitions.apply(LEVELED_UP, partitions.records([meant]))
    assert [letter.reason for letter in applied.letters] == ["unknown_specialization"]
    async with engine.begin() as conn:
        await conn.execute(text("INSERT INTO specializations (id, name, max_levels) VALUES ('REFEREE', 'Referee', 4)"))
    await partitions.apply(LEVELED_UP, partitions.records([meant]))
    assert await licenses(engine) == {(1, "REFEREE"): 3}


async def test_an_empty_curriculum_is_no_reason_for_dead_letters(engine: AsyncEngine) -> None:
    """Law 4: it is a fault of the installation."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE specializations CASCADE"))
    with pytest.raises(Exception, match="specializations is empty"):
        await partitions.apply(LEVELED_UP, partitions.records([one()]))


async def test_a_created_license_begins_when_its_event_occurred(engine: AsyncEngine) -> None:
    """Law 1: started_at, last_advanced_at, max_achieved_level and the reason of the history row."""
    partitions = await fresh(engine)
    await partitions.apply(LEVELED_UP, partitions.records([one(to_level=3), one(to_level=5, minutes=9)]))
    async with engine.connect() as conn:
        row = (await conn.execute(text("SELECT * FROM user_licenses"))).one()
    naive = START.replace(tzinfo=None)
    assert (row.started_at, row.last_advanced_at) == (naive, naive + timedelta(minutes=9))
    assert (row.current_level, row.max_achieved_level) == (5, 5)
    reasons = [reason for *_, reason in await history(engine)]
    assert reasons == ["ProgressLeveledUp /test e0", "ProgressLeveledUp /test e9"]


async def test_a_raised_progress_keeps_its_xp(engine: AsyncEngine) -> None:
    """A LicenseAdvanced changes level and last_activity, and NULL counts as no level."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(
            text("""
            INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp)
            VALUES (1, 'PLAYER', NULL, 777), (2, 'PLAYER', 2, 5)
            """)
        )
    meant = [one(ADVANCED, user=1), one(ADVANCED, user=2, minutes=1), one(ADVANCED, user=3, minutes=2)]
    await partitions.apply(ADVANCED, partitions.records(meant))
    assert await progress(engine) == {(user, "PLAYER"): 3 for user in (1, 2, 3)}
    async with engine.connect() as conn:
        xp = await conn.execute(text("SELECT total_xp FROM specialization_progress ORDER BY student_id"))
        assert xp.scalars().all() == [777, 5, 0]


async def test_events_before_apply_since_change_nothing(engine: AsyncEngine) -> None:
    """A topic that already holds history can be adopted."""
    partitions = await fresh(engine, apply_since=START + timedelta(minutes=5))
    applied = await partitions.apply(LEVELED_UP, partitions.records([one(), one(to_level=4, minutes=6)]))
    assert [applied.outcomes[index] for index in (0, 1)] == ["superseded", "created"]
    assert await licenses(engine) == {(1, "PLAYER"): 4}


async def test_an_evicted_consumer_writes_nothing(engine: AsyncEngine) -> None:
    """Law 3: a position row that is higher than it was left belongs to another member."""
    partitions = await fresh(engine)
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
    async with engine.begin() as conn:
        await conn.execute(text(change))
    with pytest.raises(DatabaseWentBack):
        await partitions.apply(LEVELED_UP, partitions.records([one(to_level=5, minutes=1)]))
    assert await licenses(engine) == {(1, "PLAYER"): 3}
