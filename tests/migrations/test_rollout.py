"""A release beside the schema of a later release (decision 0015)."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.checks.installation import migrations
from service.process.runtime import Service
from service.process.startup import wait_until_ready
from service.settings import Settings
from service.store import migrate, schema
from service.store.schema import HEAD, RELEASE, scripts_folder
from service.telemetry import metrics
from service.telemetry.health import Health
from tests.support import application
from tests.support.waiting import eventually

LATER = '''"""Something that this release does not know"""

from alembic import op

revision = "of_a_later_release"
down_revision = "{head}"
oldest_release = "{oldest}"


def upgrade() -> None:
    op.execute("CREATE TABLE levelsync.later (id int)")


def downgrade() -> None:
    op.execute("DROP TABLE levelsync.later")
'''
STANDS = "SELECT revision, oldest_release FROM levelsync.schema_info"
NEW = "999.0.0"


async def _migrate_by_a_later_release(url: str, folder: Path, oldest: str) -> None:
    """Migrate to a revision that follows ours, on which releases from `oldest` on may run."""
    shutil.copytree(scripts_folder(), folder)
    (folder / "versions" / "later.py").write_text(LATER.format(head=HEAD, oldest=oldest), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "scripts_folder", lambda: folder)
        await application.upgrade(url)
    assert await application.rows(url, STANDS) == [("of_a_later_release", oldest)]


@pytest.mark.parametrize("command", [("levelsync", "migrate"), ("alembic", "upgrade", "head")])
async def test_migrate_does_nothing_on_a_later_schema_that_allows_it(
    database_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """So the migration job succeeds after a rollback of the image."""
    await _migrate_by_a_later_release(database_url, tmp_path / "later", RELEASE)
    before = await application.structure(database_url, "levelsync")
    done = await application.run(database_url, *command)
    assert done.returncode == 0, done.stderr
    assert f"of_a_later_release, which a later release created. Release {RELEASE} may run on it" in done.stderr
    assert await application.structure(database_url, "levelsync") == before
    assert await application.rows(database_url, STANDS) == [("of_a_later_release", RELEASE)]


async def test_serve_starts_on_a_later_schema_that_allows_it(
    database_url: str, engine: AsyncEngine, settings: Settings, tmp_path: Path
) -> None:
    """The metric names the schema, and doctor passes."""
    await _migrate_by_a_later_release(database_url, tmp_path / "later", RELEASE)
    await asyncio.wait_for(wait_until_ready(engine, settings, Health()), 20)
    found = await application.asked(settings, migrations)
    detail = "at of_a_later_release, which a later release created and this release may use"
    assert (found.passed, found.detail) == (True, detail)
    labels = {"version": RELEASE, "schema": "of_a_later_release"}
    assert metrics.REGISTRY.get_sample_value("levelsync_build_info", labels) == 1


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("SELECT 1", f"Release {NEW} is the oldest that may run on it, but this is {RELEASE}"),
        ("DROP TABLE levelsync.schema_info", "does not name the releases that may run on it"),
    ],
)
async def test_a_later_schema_that_does_not_allow_it_is_refused(
    database_url: str, settings: Settings, tmp_path: Path, statement: str, sentence: str
) -> None:
    """`migrate` is exit 1 and changes nothing. `serve` waits, and `doctor` fails."""
    await _migrate_by_a_later_release(database_url, tmp_path / "later", NEW)
    await application.execute(database_url, statement)
    done = await application.run(database_url, "levelsync", "migrate")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    async with Service(settings, frozenset({"relay"})) as service:

        async def waits() -> bool:
            assert sentence in str(service.health.by_component().get("postgresql"))
            return True

        await eventually(waits)
    assert sentence in (await application.asked(settings, migrations)).detail


async def test_a_downgrade_by_the_later_release_gives_the_row_back(database_url: str, tmp_path: Path) -> None:
    await _migrate_by_a_later_release(database_url, tmp_path / "later", NEW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "scripts_folder", lambda: tmp_path / "later")
        patched.setattr(schema, "KNOWN", schema.KNOWN | {"of_a_later_release"})
        await application.downgrade(database_url, "-1")
    assert await application.rows(database_url, STANDS) == [(HEAD, "0.1.0")]


async def test_a_second_migrate_says_that_there_is_nothing_to_do(database_url: str) -> None:
    done = await application.run(database_url, "levelsync", "migrate")
    assert done.returncode == 0
    assert f"The schema is at revision {HEAD} already: nothing to do" in done.stderr
    assert "Running upgrade" not in done.stderr


async def test_a_revision_that_does_not_exist_is_wrong_use() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    done = await application.run(nowhere, "levelsync", "migrate", "--revision", "nonsense")
    revisions = "the revisions are spec_level_system, unique_progress_constraint"
    assert (done.returncode, f"there is no revision 'nonsense'; {revisions}" in done.stderr) == (2, True)
