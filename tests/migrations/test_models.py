"""The migrations, the models and the constants agree."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.store.engine import make_engine
from service.store.schema import HEAD, RELEASE, SchemaState, schema_state_of, scripts_folder
from service.store.tables import SCHEMA, metadata
from tests.support import application
from tests.support.repository import ROOT


async def test_the_migrations_make_what_the_models_declare(database_url: str, url: str) -> None:
    """Columns, types, defaults, identities, constraints, indexes and comments."""
    await application.execute(url, f"CREATE SCHEMA {SCHEMA}")
    engine = make_engine(application.settings(url))
    async with engine.begin() as conn:
        await conn.run_sync(metadata.create_all)
    await engine.dispose()
    declared = await application.structure(url, SCHEMA)
    assert await application.structure(database_url, SCHEMA) == declared


async def test_alembic_finds_nothing_to_generate(database_url: str) -> None:
    def compare(conn: Connection) -> object:
        options = {
            "include_schemas": True,
            "version_table_schema": SCHEMA,
            "include_name": lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
        }
        return compare_metadata(MigrationContext.configure(conn, opts=options), metadata)

    assert await application.asked(database_url, lambda conn: conn.run_sync(compare)) == []


def test_head_is_the_newest_revision() -> None:
    """`serve` compares with the constant, so it need not read the files."""
    assert ScriptDirectory(str(scripts_folder())).get_heads() == [HEAD]


def test_the_users_files_have_their_names() -> None:
    files = {path.name for path in Path(scripts_folder(), "versions").glob("*.py")}
    users = {"2025_10_25_1400-add_unique_constraint_progress.py", "2025_10_25_1410-fix_internship_level_count.py"}
    assert users <= files


def test_the_folder_of_the_migrations_is_not_a_package() -> None:
    """An `__init__.py` would shadow the library in the checkout."""
    assert not (ROOT / "alembic" / "__init__.py").exists()


async def test_serve_reads_the_revision_of_the_database(url: str) -> None:
    nowhere = await application.asked(url, schema_state_of)
    assert nowhere == SchemaState(None)
    assert nowhere.refusal == "The database has no schema of levelsync yet. Run: levelsync migrate"
    await application.upgrade(url, "fix_internship_levels")
    older = await application.asked(url, schema_state_of)
    assert older == SchemaState("fix_internship_levels")
    assert older.refusal == (
        f"The schema is at revision fix_internship_levels, but release {RELEASE} needs {HEAD}. Run: levelsync migrate"
    )
    await application.upgrade(url)
    newest = await application.asked(url, schema_state_of)
    assert (newest, newest.refusal) == (SchemaState(HEAD, "0.1.0"), "")
    stands = await application.rows(url, "SELECT revision, oldest_release FROM levelsync.schema_info")
    assert stands == [(HEAD, "0.1.0")]


async def test_reading_the_revision_does_not_import_alembic() -> None:
    """The import takes a third of a second at each start of a command."""
    code = "import sys, service.store.migrate, service.process.startup; sys.exit('alembic' in sys.modules)"
    assert (await application.run("postgresql://nowhere/none", "python", "-c", code)).returncode == 0
