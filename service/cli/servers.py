"""The servers of `up` and `demo`, with their folder, sample users and settings."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.cli import output
from service.cli.exits import Unreachable, WrongUse
from service.settings import PREFIX, UP_ENV_FILE, Settings
from service.store.engine import make_engine
from service.store.migrate import migrate

USERS = 200
"""Ids 1 to 200: an admin (1), an instructor (2), students."""

_USERS_THERE = text("SELECT EXISTS (SELECT FROM users)")
_STATEMENTS = (
    """
    INSERT INTO users (id, name, email, role)
    SELECT id, initcap(role) || ' ' || id, role || id || '@example.org', role::userrole
      FROM generate_series(1, :users) AS id
     CROSS JOIN LATERAL (SELECT CASE id WHEN 1 THEN 'admin' WHEN 2 THEN 'instructor' ELSE 'student' END) AS r (role)
    """,
    # Levels 1 to 5 in the three specializations that the migrations seed, for most students. The licenses below agree.
    """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp,
           completed_sessions, completed_projects, last_activity, created_at, updated_at)
    SELECT id, specialization, level, level * 12000, level * 10, level, moment, moment - interval '90 days', moment
      FROM generate_series(3, :users) AS id
     CROSS JOIN LATERAL (VALUES ('PLAYER', 1 + id % 13 % 5, id % 10 <> 9),
                                ('COACH', 1 + id % 5, id % 3 = 0),
                                ('INTERNSHIP', 1 + id % 3, id % 4 = 0)) AS v (specialization, level, has_it)
     CROSS JOIN LATERAL (SELECT timezone('UTC', now()) - id * interval '1 hour') AS m (moment)
     WHERE has_it
    """,
    """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level,
           started_at, last_advanced_at, created_at, updated_at)
    SELECT student_id, specialization_id, current_level, current_level,
           created_at, last_activity, created_at, updated_at
      FROM specialization_progress ORDER BY id
    """,
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :users)",
)


async def sample_users(connection: AsyncConnection) -> bool:
    """Create 200 users with some progress and the licenses that agree with it, in the caller's transaction.

    Return whether it created them. A database that has users is not changed.
    """
    if await connection.scalar(_USERS_THERE):
        return False
    for statement in _STATEMENTS:
        await connection.execute(text(statement), {"users": USERS} if ":users" in statement else {})
    return True


FOLDER = UP_ENV_FILE.parent
_LOCK = FOLDER / "up.lock"
_SECRET = FOLDER / "jwt-secret"
_POSTGRES = FOLDER / "postgres"


@contextlib.contextmanager
def locked_folder(*, reset: bool) -> Iterator[Path]:
    """Lock the folder while `up` runs and yield PostgreSQL's data folder. With `reset`, remove the data first.

    The kernel releases the lock, however its owner ends.

    Raises:
        WrongUse: another `up` runs in this folder, or the folder cannot be written.
    """
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        lock = _LOCK.open("a")
    except OSError as error:
        raise WrongUse(f"cannot write to {FOLDER.absolute()}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongUse(
                f"levelsync up is running in {Path.cwd()} already: Ctrl-C in its terminal stops it"
            ) from None
        UP_ENV_FILE.unlink(missing_ok=True)  # left behind by an `up` that was killed
        if reset:
            shutil.rmtree(_POSTGRES, ignore_errors=True)
            _SECRET.unlink(missing_ok=True)
        try:
            yield _POSTGRES
        finally:
            UP_ENV_FILE.unlink(missing_ok=True)


def secret() -> str:
    """Return the JWT secret of this folder. It is created once and kept until a reset."""
    if not _SECRET.exists():
        _write_privately(_SECRET, secrets.token_urlsafe(48))
    return _SECRET.read_text(encoding="utf-8")


def write_settings(settings: Mapping[str, str]) -> None:
    """Write the settings with which other commands in this folder find the running servers."""
    lines = [f"{PREFIX}{name}={value}\n" for name, value in settings.items()]
    _write_privately(UP_ENV_FILE, "".join(lines))


def _write_privately(path: Path, text: str) -> None:
    """Write a file that other users can never read, and that is never incomplete."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.rename(path)


_PLAIN_BROKER = {"kafka_security_protocol": "PLAINTEXT", "kafka_topic_replication": None, "kafka_create_topics": True}


@asynccontextmanager
async def local_stack(data: Path, settings: Settings) -> AsyncIterator[Settings]:
    """Start an embedded PostgreSQL with its data in `data` and an embedded broker, migrate, create sample users.

    Yield `settings`, changed to reach both servers. They are stopped at the end of the context.

    Raises:
        Unreachable: one of them cannot run on this machine.
    """
    # Imported here, because every command imports this module, also where the extra `embedded` is not installed.
    from service.local import EmbeddedBroker, EmbeddedError, EmbeddedPostgres

    try:
        async with EmbeddedPostgres(data) as postgres, EmbeddedBroker() as broker:
            addresses = {
                "database_url": SecretStr(postgres.url),
                "kafka_bootstrap_servers": broker.bootstrap_servers,
            }
            reached = settings.model_copy(update=addresses | _PLAIN_BROKER)
            await asyncio.to_thread(migrate, reached)
            await _make_sample_users(reached)
            yield reached
    except EmbeddedError as error:
        raise Unreachable(str(error)) from error


async def _make_sample_users(settings: Settings) -> None:
    """Create the sample users in a database without users."""
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.begin() as conn:
            if await sample_users(conn):
                output.print_note(f"Created {USERS} sample users, ids 1 to {USERS}")
    finally:
        await engine.dispose()
