"""A database of the application before levelsync's migrations, and readers of any database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import asyncpg
import pytest
from alembic import command
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from service.settings import Settings
from service.store import migrate
from service.store.engine import make_engine
from tests.support import preloaded
from tests.support.repository import ROOT

T = TypeVar("T")
_UPGRADE = "INFO  [alembic.runtime.migration] Running upgrade"
_TITLE = "Fix INTERNSHIP level count - DB is source of truth (3 levels)"
SEED_LINES = (
    f"{_UPGRADE} spec_level_system -> unique_progress_constraint, Add unique constraint to specialization_progress",
    f"{_UPGRADE} unique_progress_constraint -> fix_internship_levels, {_TITLE}",
)

# The application's tables, with columns that levelsync does not know, ids from sequences, no unique constraint yet,
# INTERNSHIP still wrong, and their own Alembic history.
_APPLICATION = """
    CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
    INSERT INTO alembic_version VALUES ('9f3c_of_the_application');
    CREATE TABLE users (id serial PRIMARY KEY, name varchar, email varchar UNIQUE, role varchar, nickname varchar);
    CREATE TABLE specializations (id varchar(50) PRIMARY KEY, name varchar(100), icon varchar, description text,
        max_levels int NOT NULL, is_active boolean DEFAULT true, created_at timestamp);
    CREATE TABLE internship_levels (id int PRIMARY KEY, name varchar(100), required_xp int, required_sessions int);
    CREATE TABLE specialization_progress (id serial PRIMARY KEY,
        student_id int REFERENCES users ON DELETE CASCADE,
        specialization_id varchar(50) REFERENCES specializations ON DELETE CASCADE,
        current_level int, total_xp int, completed_sessions int, completed_projects int,
        theory_hours_completed int NOT NULL DEFAULT 0, practice_hours_completed int NOT NULL DEFAULT 0,
        last_activity timestamp, created_at timestamp, updated_at timestamp);
    CREATE TABLE user_licenses (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users,
        specialization_type varchar(20) NOT NULL, current_level int NOT NULL DEFAULT 1,
        max_achieved_level int NOT NULL DEFAULT 1, started_at timestamp NOT NULL, last_advanced_at timestamp,
        instructor_notes text, paid boolean NOT NULL DEFAULT false, created_at timestamp, updated_at timestamp);
    CREATE TABLE license_progressions (id serial PRIMARY KEY, user_license_id int NOT NULL REFERENCES user_licenses,
        from_level int NOT NULL, to_level int NOT NULL, advanced_by int REFERENCES users, advancement_reason text,
        requirements_met text, advanced_at timestamp DEFAULT now());
    INSERT INTO users (name, email, role) SELECT 'u' || i, i || '@x.org', 'student' FROM generate_series(1, 20) i;
    INSERT INTO specializations (id, name, max_levels)
        VALUES ('PLAYER', 'P', 8), ('COACH', 'C', 8), ('INTERNSHIP', 'I', 5);
    INSERT INTO internship_levels (id, name) VALUES (1, 'Junior'), (2, 'Mid-level'), (3, 'Senior');
    INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', 2);
    INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at) VALUES (1, 'PLAYER', 2, now());
"""

# Every column, constraint and index of a schema, as one text.
_SNAPSHOT = """
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                      pg_get_expr(d.adbin, d.adrelid)) || a.attidentity::text || a.attgenerated::text
                      || coalesce(col_description(c.oid, a.attnum), '') AS line
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname <> 'alembic_version'
        UNION ALL
        SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
         WHERE connamespace = to_regnamespace($1) AND conname NOT LIKE 'alembic_version%'
        UNION ALL
        SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename <> 'alembic_version') AS lines
"""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Open a connection of asyncpg. Each statement is its own transaction."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    """Run statements, each in its own transaction."""
    async with connected(url) as conn:
        for statement in statements:
            await conn.execute(statement)


async def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    async with connected(url) as conn:
        return [tuple(row) for row in await conn.fetch(query)]


async def value(url: str, query: str, *arguments: object) -> Any:
    """Return the one value of a query."""
    async with connected(url) as conn:
        return await conn.fetchval(query, *arguments)


async def make_application(url: str, *changes: str) -> None:
    """Create the application's tables with a few rows, then run a test's changes."""
    await execute(url, _APPLICATION, *changes)


def settings(url: str) -> Settings:
    """Return settings without an environment file."""
    return Settings(_env_file=None, database_url=url)


async def asked(of: str | Settings, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Return what a function finds on a connection of the service's own."""
    engine = make_engine(settings(of) if isinstance(of, str) else of)
    try:
        async with engine.connect() as conn:
            return await question(conn)
    finally:
        await engine.dispose()


async def upgrade(url: str, revision: str = "head", with_settings: Settings | None = None) -> None:
    """Migrate in this process, as `levelsync migrate` does."""
    await asyncio.to_thread(migrate.migrate, with_settings or settings(url), revision)


async def downgrade(url: str, revision: str = "base") -> None:
    """Downgrade in this process, as `alembic downgrade` does."""
    await asyncio.to_thread(partial(command.downgrade, migrate.alembic_config(settings(url)), revision))


async def refused(url: str, revision: str = "head") -> str:
    """Run a migration that must stop, and return its message."""
    with pytest.raises(migrate.MigrationStopped) as stopped:
        await upgrade(url, revision)
    return str(stopped.value)


@asynccontextmanager
async def guest(url: str) -> AsyncIterator[tuple[str, str]]:
    """Create a role without rights; yield its name and its URL."""
    role = f"guest_{url[-8:]}"
    await execute(url, f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    try:
        yield role, make_url(url).set(username=role, password="guest").render_as_string(hide_password=False)  # noqa: S106 - of the tests only
    finally:
        await execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def state(url: str) -> tuple[str, dict[str, list[str]]]:
    """Give structure and content of the application's schema."""
    return await structure(url), await content(url)


async def structure(url: str, schema: str = "public") -> str:
    """Describe every table, column, default, constraint and index of a schema."""
    return str(await value(url, _SNAPSHOT, schema))


async def content(url: str) -> dict[str, list[str]]:
    """Return every row of every table of the application's schema, as text."""
    async with connected(url) as conn:
        names = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return {
            name: [row[0] for row in await conn.fetch(f'SELECT t::text FROM public."{name}" t ORDER BY 1')]
            for (name,) in names
        }


async def run(url: str, program: str, *arguments: str, **environment: str) -> preloaded.Result:
    """Run `levelsync`, `alembic`, a script or `python` in the checkout, on a database."""
    env = {**os.environ, "LEVELSYNC_DATABASE_URL": url, **environment}
    return await asyncio.to_thread(preloaded.run, program, *arguments, env=env, cwd=ROOT)
