"""What the service asks before it writes a level."""

import pytest
from sqlalchemy import text

from service.faults import InstallationFault
from service.levels import Curriculum, read_curriculum
from service.store.engine import make_engine
from tests.support import application


def test_a_name_is_found_exactly_or_without_case() -> None:
    """Whatever the case of either spelling."""
    curriculum = Curriculum({"PLAYER": 8, "Coach": 3})
    assert [curriculum.canonical(name) for name in ("PLAYER", "player", "COACH", "coach")] == [
        "PLAYER",
        "PLAYER",
        "Coach",
        "Coach",
    ]
    assert curriculum.max_level("Coach") == 3


def test_an_unknown_name_is_none() -> None:
    """Which becomes a dead letter, never a guess."""
    curriculum = Curriculum({"PLAYER": 8})
    assert curriculum.canonical("GOALKEEPER") is None
    with pytest.raises(KeyError):
        curriculum.max_level("GOALKEEPER")


def test_a_name_that_cannot_be_used_is_known_and_its_maximum_is_a_fault() -> None:
    """Its events wait (law 4): it is not unknown."""
    curriculum = Curriculum({"PLAYER": 8}, {"COACH": "why"})
    assert curriculum.canonical("coach") == "COACH"
    with pytest.raises(InstallationFault, match="why"):
        curriculum.max_level("COACH")


async def test_a_new_specialization_counts_at_once(database_url: str) -> None:
    """No restart, no code; an inactive one applies like any other."""
    engine = make_engine(application.settings(database_url))
    async with engine.begin() as conn:
        assert (await read_curriculum(conn)).levels == {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}
        insert = "INSERT INTO specializations (id, name, max_levels, is_active) VALUES ('Referee', 'R', 4, false)"
        await conn.execute(text(insert))
        curriculum = await read_curriculum(conn)
    await engine.dispose()
    assert curriculum.canonical("REFEREE") == "Referee"
    assert curriculum.max_level("Referee") == 4
