"""Column types that occur in applications are migrated, compared and listed like ours."""

from __future__ import annotations

import pytest

from service.settings import Settings
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from tests.support import application
from tests.support.applier import Events, heal, rise, sync
from tests.support.model import ADVANCED
from tests.support.records import START as WHEN
from tests.support.runs import OneWorker
from tests.support.tables import read

_NAMES = "'PLAYER', 'COACH', 'INTERNSHIP'"
_LICENSE_ENUM = f"""
    CREATE TYPE specialization_type AS ENUM ({_NAMES}, 'player', 'GOALKEEPER');
    ALTER TABLE user_licenses ALTER specialization_type TYPE specialization_type
        USING specialization_type::specialization_type;
"""
_ALL_ENUM = f"""
    {_LICENSE_ENUM}
    CREATE TYPE specialization AS ENUM ({_NAMES});
    ALTER TABLE specialization_progress DROP CONSTRAINT specialization_progress_specialization_id_fkey;
    ALTER TABLE specializations ALTER id TYPE specialization USING id::specialization;
    ALTER TABLE specialization_progress ALTER specialization_id TYPE specialization
        USING specialization_id::specialization;
"""
_TEXT = """
    ALTER TABLE specializations ALTER id TYPE text;
    ALTER TABLE specialization_progress ALTER specialization_id TYPE text;
    ALTER TABLE user_licenses ALTER specialization_type TYPE text;
"""
_ZONED = """
    ALTER TABLE user_licenses ALTER started_at TYPE timestamptz, ALTER last_advanced_at TYPE timestamptz,
        ALTER created_at TYPE timestamptz, ALTER updated_at TYPE timestamptz;
    ALTER TABLE specialization_progress ALTER last_activity TYPE timestamptz, ALTER updated_at TYPE timestamptz,
        ALTER theory_hours_completed DROP NOT NULL, ALTER practice_hours_completed DROP NOT NULL;
    ALTER TABLE license_progressions ALTER advanced_at TYPE timestamptz;
"""
_BIGINT = """
    ALTER TABLE users ALTER id TYPE bigint;
    ALTER TABLE specialization_progress ALTER id TYPE bigint, ALTER student_id TYPE bigint;
    ALTER TABLE user_licenses ALTER id TYPE bigint, ALTER user_id TYPE bigint;
    ALTER TABLE license_progressions ALTER user_license_id TYPE bigint, ALTER advanced_by TYPE bigint;
"""
# Another case, and a name that no specialization has. A foreign key would exclude both.
_STRAYS = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
    VALUES (7, 'player', 2, now()), (8, 'GOALKEEPER', 1, now());
"""
CASES = {
    "varchar": _STRAYS,
    "text": _TEXT + _STRAYS,
    "enum of licenses": _LICENSE_ENUM + _STRAYS,
    "enums everywhere": _ALL_ENUM + _STRAYS,
    "times with zone, hours without a default": _ZONED + _STRAYS,
    "bigint ids": _BIGINT + _STRAYS,
    "foreign key": "ALTER TABLE user_licenses ADD FOREIGN KEY (specialization_type) REFERENCES specializations",
}
ROWS = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level)
    VALUES (2, 'PLAYER', 4), (3, 'COACH', 2), (4, 'COACH', 5);
    INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
    VALUES (2, 'PLAYER', 3, now()), (4, 'COACH', 5, now()), (5, 'INTERNSHIP', 1, now());
"""
FOUND = [(2, "PLAYER", "mismatched"), (3, "COACH", "missing_license"), (5, "INTERNSHIP", "missing_progress")]
STRAYS_FOUND = [(7, "player", "wrong_case"), (8, "GOALKEEPER", "unknown_specialization")]


@pytest.mark.parametrize("shape", CASES)
async def test_every_shape_is_compared_listed_and_written(url: str, at_once: Settings, shape: str) -> None:
    """An enum made every comparison fail: operator does not exist."""
    await application.make_application(url, ROWS, CASES[shape])
    await application.upgrade(url)
    engine = make_engine(application.settings(url))
    strays = [] if shape == "foreign key" else STRAYS_FOUND
    listed = [issue async for issue in ProgressLicenseSyncService(engine).find_desync_issues()]
    assert [(one.user_id, one.specialization, one.issue_type) for one in listed] == FOUND + strays
    one_worker = OneWorker(engine, at_once)
    dry = await one_worker.run()
    assert (dry["status"], dry["counts"]["needs_decision"]) == ("completed", len(strays))
    kept = "SELECT user_id, specialization, kind FROM levelsync.drift_issues ORDER BY 1"
    assert await read(engine, kept) == FOUND + strays
    one = await one_worker.run(specialization="player")
    assert one["counts"]["mismatched"] == 1
    pairs = "SELECT user_id, specialization, state FROM levelsync.pairs WHERE user_id < 7 ORDER BY 1"
    assert await read(engine, pairs) == sorted([(1, "PLAYER", "in_sync"), (4, "COACH", "in_sync"), *FOUND])

    events = await Events(engine).begin()
    await events.apply(rise(2, 5, at=WHEN), rise(6, 2, "INTERNSHIP", at=WHEN))
    await events.apply(rise(9, 3, "coach", ADVANCED, at=WHEN))
    assert (await sync(engine, 4, "progress_to_license", "COACH")).message == "Already in sync"
    report = await heal(engine, at_once, direction="highest")
    assert (report["status"], report["counts"]["healed"], report["counts"]["failed"]) == ("completed", 5, 0)
    levels = "SELECT user_id, CAST(specialization_type AS text), current_level FROM user_licenses ORDER BY 1"
    written = [(1, "PLAYER", 2), (2, "PLAYER", 5), (3, "COACH", 2), (4, "COACH", 5), (9, "COACH", 3)]
    written += [(5, "INTERNSHIP", 1), (6, "INTERNSHIP", 2)]
    written += [(7, "player", 2), (8, "GOALKEEPER", 1)] if strays else []
    assert await read(engine, levels) == sorted(written)
    matching = "SELECT count(*) FROM levelsync.pairs WHERE state = 'in_sync'"
    assert await read(engine, matching) == [(7,)]
    when = "last_advanced_at AT TIME ZONE 'UTC'" if "with zone" in shape else "last_advanced_at"
    assert await read(engine, f"SELECT {when} FROM user_licenses WHERE user_id = 6") == [(WHEN.replace(tzinfo=None),)]
    await engine.dispose()
