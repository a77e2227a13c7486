"""docs/dashboards.md describes the views as they are, and its statements run."""

from __future__ import annotations

import re
import uuid

import asyncpg
import pytest
from sqlalchemy import Connection

from service.store import revisions
from service.store.engine import make_engine
from tests.support import application, reader, repository
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES, ROLE = STATEMENTS[:-1], STATEMENTS[-1]
VIEWS = (ROOT / "docs" / "views.md").read_text(encoding="utf-8")
RELATIONS = tuple(f"levelsync.{name}" for name in ("pairs", "drift", "run_summary", "applied_offsets", "dead_letters"))


async def test_a_reader_can_run_every_example_and_write_nothing(database_url: str) -> None:
    """With only the rights that the document grants."""
    name = f"reader_{uuid.uuid4().hex}"
    await application.execute(database_url, *ROLE.replace("levelsync_reader", name).strip().split(";\n"))
    try:
        async with application.connected(database_url) as conn:
            await conn.execute(f"SET SESSION AUTHORIZATION {name}")
            assert [row["percent_in_sync"] for row in await conn.fetch(EXAMPLES[0])] == [100, 100, 100]
            for example in EXAMPLES[1:]:
                assert await conn.fetch(example) == []
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute("UPDATE user_licenses SET current_level = 1")
    finally:
        await application.execute(database_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_pairs_are_compared_with_the_rights_of_whoever_asks(database_url: str) -> None:
    """The view does not lend the application's tables to a role without rights on them."""
    name = f"reader_{uuid.uuid4().hex}"
    grants = [one for one in ROLE.replace("levelsync_reader", name).strip().split(";\n") if "public." not in one]
    await application.execute(database_url, *grants)
    try:
        async with application.connected(database_url) as conn:
            await conn.execute(f"SET SESSION AUTHORIZATION {name}")
            assert await conn.fetch("SELECT * FROM levelsync.drift") == []
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch("SELECT * FROM levelsync.pairs")
    finally:
        await application.execute(database_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("relation", RELATIONS)
async def test_a_view_and_its_columns_are_explained_as_postgresql_comments_them(
    database_url: str, relation: str
) -> None:
    """docs/views.md and the comments in PostgreSQL are the same text for the same columns."""
    columns = "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = '{}'::regclass"
    found = await application.rows(
        database_url, f"{columns.format(relation)} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    about = await application.value(database_url, f"SELECT obj_description('{relation}'::regclass)")
    section = reader.section(VIEWS.replace("`", ""), relation)
    assert re.findall(r"^\| (\w+) \| (.+) \|$", section, re.MULTILINE) == [("column", "means"), *found]
    assert section.strip().partition("\n")[0] == about


async def test_every_view_has_comments_and_keeps_them_where_it_is_created_again(database_url: str) -> None:
    """The revision `bigint_user_ids` creates two views again."""
    set_aside = ("levelsync.drift", "levelsync.pairs")
    engine = make_engine(application.settings(database_url))
    async with engine.begin() as conn:
        await conn.run_sync(lambda sync: _create_again(sync, set_aside))
    await engine.dispose()
    bare = await application.rows(
        database_url,
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 "
        "WHERE c.relnamespace = 'levelsync'::regnamespace AND c.relkind = 'v' "
        "AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)",
    )
    assert bare == []


def test_every_alert_is_listed_with_its_severity() -> None:
    listed = dict(re.findall(r"^\| \[(Levelsync\w+)\]\(.*\| (page|ticket) \|$", TEXT, re.MULTILINE))
    assert listed == {name: rule["labels"]["severity"] for name, rule in repository.alerts().items()}


def _create_again(conn: Connection, views: tuple[str, ...]) -> None:
    with revisions.set_aside(conn, views):
        pass
