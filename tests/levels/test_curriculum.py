"""What the service asks before it writes a level (R13)."""

import pytest
from sqlalchemy import text

from service.database.engine import make_engine
from service.levels import Curriculum, max_levels, read_curriculum
from tests.migrations import live


def test_a_name_is_found_exactly_or_without_case() -> None:
    """The exact one wins where two differ in their case only."""
    curriculum = Curriculum({"PLAYER": 8, "player": 5, "Coach": 3})
    assert [curriculum.canonical(name) for name in ("PLAYER", "player", "COACH", "coach")] == [
        "PLAYER",
        "player",
        "Coach",
        "Coach",
    ]
    assert curriculum.canonical("Player") in {"PLAYER", "player"}
    assert curriculum.max_level("player") == 5


def test_an_unknown_name_is_none() -> None:
    """Which becomes a dead letter, never a guess."""
    curriculum = Curriculum({"PLAYER": 8})
    assert curriculum.canonical("GOALKEEPER") is None
    with pytest.raises(KeyError):
        curriculum.max_level("GOALKEEPER")


def test_an_empty_table_is_said_to_be_empty() -> None:
    """A fault of the installation (law 4)."""
    assert Curriculum({}).empty
    assert not Curriculum({"X": 1}).empty


async def test_a_new_specialization_counts_at_once(database_url: str) -> None:
    """R9c: no restart, no code; an inactive one applies like any other."""
    engine = make_engine(live.settings(database_url))
    async with engine.begin() as conn:
        assert await max_levels(conn) == {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}
        insert = "INSERT INTO specializations (id, name, max_levels, is_active) VALUES ('Referee', 'R', 4, false)"
        await conn.execute(text(insert))
        curriculum = await read_curriculum(conn)
    await engine.dispose()
    assert curriculum.canonical("REFEREE") == "Referee"
    assert curriculum.max_level("Referee") == 4
