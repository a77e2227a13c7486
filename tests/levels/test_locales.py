"""Names are folded from a to z only, whatever the database's locale."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from service.core.names import fold
from service.levels import read_curriculum
from service.local import EmbeddedPostgres
from service.reconcile.sql import compare_range
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from service.sync.issues import stream_issues
from tests.support import application
from tests.support.applier import Partitions, one
from tests.support.servers import POSTGRES_SETTINGS, Postgres, system_programs
from tests.support.tables import licenses

_SPECIALIZATIONS = "INSERT INTO specializations (id, name, max_levels) VALUES ('játékos', 'j', 8), ('STRASSE', 's', 8)"
_LICENSES = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
    SELECT user_id, name, 2, now()
      FROM (VALUES (2, 'internship'), (3, 'Játékos'), (4, 'JÁTÉKOS'), (5, 'straße'), (6, '\u0131nternsh\u0131p'),
                   (7, 'İNTERNSHİP'))
           AS v (user_id, name)
"""
_KINDS = {
    (2, "internship"): "wrong_case",
    (3, "Játékos"): "wrong_case",
    (4, "JÁTÉKOS"): "unknown_specialization",
    (5, "straße"): "unknown_specialization",
    (6, "\u0131nternsh\u0131p"): "unknown_specialization",
    (7, "İNTERNSHİP"): "unknown_specialization",
}


@pytest.fixture(scope="module")
def icu_postgres() -> Iterator[Postgres]:
    """The system's PostgreSQL, because the wheel's has no ICU."""
    programs = system_programs()
    if programs is None:
        pytest.skip("no PostgreSQL with ICU is installed on this machine")
    folder = tempfile.mkdtemp(prefix="levelsync-postgres-")  # other accounts cannot enter pytest's folder
    with EmbeddedPostgres(Path(folder) / "postgres", server_settings=POSTGRES_SETTINGS, programs=programs) as server:
        yield Postgres(server.url, server=server)
    shutil.rmtree(folder)


@pytest.fixture(params=["C", "C.UTF-8", "tr-TR", "de-DE"])
async def url(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[str]:
    of_icu = "-" in request.param and "UTF-8" not in request.param
    server: Postgres = request.getfixturevalue("icu_postgres") if of_icu else postgres
    locale = f"LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE '{request.param}'" if of_icu else f"LOCALE '{request.param}'"
    name = f"levelsync_test_{uuid.uuid4().hex}"
    await server.start()
    await server.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' {locale}")
    made = server.url_of(name)
    await application.make_application(made, _SPECIALIZATIONS, _LICENSES)
    await application.upgrade(made)
    yield made
    await server.drop_database(made)


def test_only_a_to_z_are_folded() -> None:
    """Python's `upper` folds more."""
    folded = [fold(name) for name in ("internship", "játékos", "straße", "\u0131nternsh\u0131p", "9z_")]
    assert folded == ["INTERNSHIP", "JáTéKOS", "STRAßE", "\u0131NTERNSH\u0131P", "9Z_"]


async def test_names_are_the_same_in_every_locale(url: str) -> None:
    """Appliers, scans, the list of issues and syncs agree, whatever `upper` does in the locale."""
    engine = make_engine(application.settings(url))
    async with engine.connect() as conn:
        curriculum = await read_curriculum(conn)
        known = {name: curriculum.canonical(name) for _, name in _KINDS}
        listed = {(one.user_id, one.specialization): one.issue_type async for one in stream_issues(conn, None)}
        of_one = [(one.user_id, one.specialization) async for one in stream_issues(conn, "internship")]
        values = {"after": 0, "upto": 100, **curriculum.parameters}
        scanned = (await conn.execute(text(compare_range(None)), values)).one()
    partitions = await Partitions(engine).begin()
    events = [one(user=2, specialization="Internship", to_level=3), one(user=4, specialization="JÁTÉKOS", minutes=1)]
    await partitions.apply_all(events)
    result = await ProgressLicenseSyncService(engine).sync_license_to_progress(2, "Internship")
    levels = await licenses(engine)
    async with engine.connect() as conn:
        letters = (await conn.execute(text("SELECT reason FROM levelsync.dead_letters"))).scalars().all()
    await engine.dispose()
    unknown = dict.fromkeys(("JÁTÉKOS", "straße", "\u0131nternsh\u0131p", "İNTERNSHİP"))
    assert known == {"internship": "INTERNSHIP", "Játékos": "játékos"} | unknown
    assert listed == _KINDS
    assert {(user, name): kind for user, name, kind, *_ in scanned.suspects} == _KINDS
    assert of_one == [(2, "internship")]
    assert (levels[2, "internship"], letters) == (3, ["unknown_specialization"])
    assert (result.action, result.after.progress_level) == ("created", 3)
