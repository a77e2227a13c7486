"""The application in its own schema: its tables are where the role's search_path finds them."""

from collections.abc import Sequence

import pytest
from sqlalchemy import make_url

from tests.support import application

_MOVED = (
    "users",
    "specializations",
    "internship_levels",
    "specialization_progress",
    "user_licenses",
    "license_progressions",
    "alembic_version",
)
_LICENSE = "user_licenses (user_id, specialization_type, current_level, started_at)"
_DUPLICATES = (
    "INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', 3)",
    f"INSERT INTO {_LICENSE} VALUES (1, 'PLAYER', 3, now())",
    "INSERT INTO license_progressions (user_license_id, from_level, to_level) VALUES (1, 1, 2)",
)
_TABLES_OF_PUBLIC = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"


async def _move(url: str, schema: str = "academy", path: str = "academy, public", more: Sequence[str] = ()) -> None:
    """Move the application's tables, with duplicates on both sides, to their own schema."""
    await application.make_application(url, *_DUPLICATES, f"CREATE SCHEMA {schema}")
    await application.execute(url, *(f"ALTER TABLE {table} SET SCHEMA {schema}" for table in _MOVED), *more)
    await _set_path(url, path)


async def _set_path(url: str, path: str) -> None:
    await application.execute(url, f'ALTER DATABASE "{url.rpartition("/")[2]}" SET search_path = {path}')


@pytest.mark.parametrize(("schema", "path"), [("academy", "academy, public"), ('"My School"', 'x, "My School"')])
async def test_an_application_in_its_own_schema_is_migrated_there(url: str, schema: str, path: str) -> None:
    """Earlier, nine tables were created in `public`."""
    await _move(url, schema, path)
    await application.upgrade(url)
    await application.upgrade(url)
    assert await application.rows(url, _TABLES_OF_PUBLIC) == []
    levels = f"SELECT current_level FROM {schema}.user_licenses UNION ALL SELECT current_level FROM {schema}."
    assert await application.rows(url, f"{levels}specialization_progress") == [(3,), (3,)]
    removed = await application.rows(url, "SELECT table_name FROM levelsync.removed_rows ORDER BY 1")
    assert removed == [("specialization_progress",), ("user_licenses",)]
    query = "SELECT conname FROM pg_constraint WHERE conname LIKE 'uq%spec%' ORDER BY 1"
    names = [name for (name,) in await application.rows(url, query)]
    assert names == ["uq_specialization_progress_user_spec", "uq_user_licenses_user_specialization"]
    await _set_path(url, "public")  # like a dashboard's role, which does not name the schema
    pairs = "SELECT user_id, progress_level, state FROM levelsync.pairs"
    assert await application.rows(url, pairs) == [(1, 3, "in_sync")]


async def test_users_is_never_created_where_another_schema_has_it(url: str) -> None:
    await _move(url, path="public")
    sentence = await application.refused(url)
    role = make_url(url).username
    assert f"The search_path of the role {role} (public) finds no table users" in sentence
    assert "the schema academy has one" in sentence
    assert f"ALTER ROLE {role} SET search_path = academy, public" in sentence
    assert "Nothing was changed" in sentence
    assert await application.rows(url, _TABLES_OF_PUBLIC) == []
    assert await application.value(url, "SELECT to_regnamespace('levelsync')") is None
    await _set_path(url, "academy, public")
    await application.upgrade(url)


async def test_the_first_schema_on_the_path_counts(url: str) -> None:
    await application.make_application(url, "CREATE SCHEMA other", "CREATE TABLE other.users (x int)")
    await _set_path(url, "other, public")
    before = await application.structure(url), await application.structure(url, "other")
    assert "column other.users.id" in await application.refused(url)
    after = await application.structure(url), await application.structure(url, "other")
    assert after == before


@pytest.mark.parametrize(
    ("path", "schema"), [("app, public", "app"), ("nothing, public", "public"), ("levelsync, public", "public")]
)
async def test_a_database_of_our_own_is_made_in_the_first_schema(url: str, path: str, schema: str) -> None:
    """Never in `levelsync`, which is on the path of a role of that name as "$user"."""
    await application.execute(url, "CREATE SCHEMA app")
    await _set_path(url, path)
    await application.upgrade(url)
    found = "SELECT schemaname FROM pg_tables WHERE tablename IN ('users', 'user_licenses')"
    assert await application.rows(url, found) == [(schema,), (schema,)]
    assert await application.value(url, "SELECT count(*) FROM specializations") == 3


async def test_a_search_path_without_a_schema_is_reported(url: str) -> None:
    await _set_path(url, "nowhere")
    sentence = await application.refused(url)
    assert "(nowhere) names no schema that exists" in sentence
    assert "SET search_path = public" in sentence
