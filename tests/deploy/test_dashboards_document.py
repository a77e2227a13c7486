"""docs/dashboards.md: what it says of the views is so, and its statements run."""

from __future__ import annotations

import re
import uuid

import asyncpg
import pytest

from tests.support import application, repository
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
STATEMENTS = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES, ROLE = STATEMENTS[:-1], STATEMENTS[-1]
VIEWS = ("pairs", "drift", "run_summary")


async def test_a_reader_can_run_every_example_and_write_nothing(database_url: str) -> None:
    """With exactly the rights that the document grants."""
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
    """The view lends nobody the application's tables: without a right on them there is no answer."""
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


@pytest.mark.parametrize("view", VIEWS)
async def test_every_column_of_a_view_is_explained(database_url: str, view: str) -> None:
    """And no other: a column that is gone is a query that breaks."""
    async with application.connected(database_url) as conn:
        statement = await conn.prepare(f"SELECT * FROM levelsync.{view}")
        columns = {attribute.name for attribute in statement.get_attributes()}
    assert _explained(view) == columns


def test_every_alert_is_listed_with_its_severity() -> None:
    """The list is what a team reads before it takes the rules over."""
    listed = dict(re.findall(r"^\| \[(Levelsync\w+)\]\(.*\| (page|ticket) \|$", TEXT, re.MULTILINE))
    assert listed == {name: rule["labels"]["severity"] for name, rule in repository.alerts().items()}


def _explained(view: str) -> set[str]:
    section = TEXT.partition(f"**`levelsync.{view}`**")[2].partition("\n**`")[0].partition("\n###")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
