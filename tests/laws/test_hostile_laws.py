"""Laws 1, 2 and 4 where the application refuses records, names have several spellings, and fences stand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied
from tests.support.applier import LAWS, SAMPLE_USERS, Partitions, fresh
from tests.support.model import LEVELED_UP, Meant, Model
from tests.support.records import MAXIMUM, START, meanings, with_case
from tests.support.tables import history

_REFUSES = """
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.current_level = 5 AND NEW.user_id = 1 THEN RAISE 'five is not for 1'; END IF;
        IF NEW.current_level = 6 AND NEW.user_id = 2 THEN RETURN NULL; END IF;
        IF NEW.current_level > 4 AND NEW.user_id = 3 THEN NEW.current_level := 4; END IF;
        RETURN NEW;
    END $$
"""
_BEFORE = """
    CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON user_licenses FOR EACH ROW EXECUTE FUNCTION refuse()
"""
_OTHER_SPELLING = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    VALUES (4, 'player', 1, 1, now())
"""
_FENCE = "INSERT INTO levelsync.fences VALUES (:user, :name, :at, 1, 'test')"


class Refusing(Model):
    """The model of an application that refuses 5 for user 1, swallows 6 for user 2, and caps user 3 at 4."""

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
    engine: AsyncEngine, meant: list[Meant], cuts: list[int], spelling: str, fenced: str, minutes: int
) -> None:
    """Each refused record stands alone, a license in another case is the pair's, a fence counts under any spelling."""
    partitions, expected = await fresh(engine), Refusing(MAXIMUM, SAMPLE_USERS)
    at = START.replace(hour=minutes // 60, minute=minutes % 60)
    async with engine.begin() as conn:
        for statement in (_REFUSES, _BEFORE, _OTHER_SPELLING):
            await conn.execute(text(statement))
        await conn.execute(text(_FENCE), {"user": 2, "name": fenced, "at": at})
    expected.licenses[4, "PLAYER"], expected.fences[2, "PLAYER"] = 1, at
    reasons: dict[str, str] = {}
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(meant)], strict=True):
        await _apply(partitions, meant[begin:end], spelling, reasons)
    for record in meant:
        expected.apply(record)
    async with engine.connect() as conn:
        rows = await conn.execute(text("SELECT user_id, upper(specialization_type), current_level FROM user_licenses"))
        assert {(row[0], row[1]): row[2] for row in rows} == expected.licenses
    found: list[tuple[Any, ...]] = [((pair[0], pair[1].upper()), *step) for pair, *step in await history(engine)]
    assert sorted(found, key=lambda step: step[0]) == sorted(expected.history, key=lambda step: step[0])
    assert reasons == expected.letters


async def _apply(partitions: Partitions, meant: list[Meant], spelling: str, reasons: dict[str, str]) -> None:
    if not meant:
        return
    records = [
        with_case(record, spelling) if one.specialization == "PLAYER" and not one.bad else record
        for one, record in zip(meant, partitions.records(meant), strict=True)
    ]
    applied: Applied = await partitions.apply(LEVELED_UP, records)
    for letter in applied.letters:
        reasons[meant[letter.index].id] = letter.reason.value
