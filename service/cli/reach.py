"""Connections of a command to PostgreSQL and Kafka. If one does not answer, the command ends with exit code 3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.cli.exits import Unreachable, is_full_disk
from service.settings import PREFIX, Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_UP = "or start everything in this folder with: levelsync up"
_NO_RIGHT = "42501"
_NO_SUCH_TABLE = frozenset({"42P01", "3F000"})  # undefined_table, invalid_schema_name


@asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Yield an engine with one connection, and raise the faults of PostgreSQL with a message for the user.

    Raises:
        Unreachable: PostgreSQL does not answer, refuses the user, or has no schema `levelsync`.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from service.store.engine import make_engine

    created = make_engine(settings, pool_size=1)
    try:
        yield created
    except (SQLAlchemyError, OSError) as error:
        _raise_if_not_from_server(error)
        raise database_trouble(settings, error) from error
    finally:
        await created.dispose()


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Open one connection in one transaction, which is rolled back unless the caller commits.

    Raises:
        Unreachable: as `engine` raises it.
    """
    async with engine(settings) as created, created.connect() as connection:
        yield connection


@asynccontextmanager
async def kafka(settings: Settings) -> AsyncIterator[None]:
    """Turn errors of Kafka inside the context into `Unreachable`, and silence the log lines of aiokafka."""
    from aiokafka.errors import KafkaError

    from service.stream.topics import TopicsError

    for name in ("aiokafka", "asyncio"):  # the message below is enough
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except TopicsError as error:
        raise Unreachable(str(error)) from error
    except (KafkaError, TimeoutError, OSError) as error:
        _raise_if_not_from_server(error)
        raise await kafka_trouble(settings, error) from error


def _raise_if_not_from_server(error: Exception) -> None:
    """Raise the error of a full disk behind stdout as it is.

    Raise CancelledError after Ctrl-C, because the error is only the connection that Ctrl-C interrupted.
    """
    if is_full_disk(error):
        raise error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


async def topics(settings: Settings) -> None:
    """Create the topics of the contract that are missing.

    Raises:
        Unreachable: topics are missing, and KAFKA_CREATE_TOPICS is false.
    """
    from service.stream.topics import ensure_topics

    if missing := await ensure_topics(settings):
        hint = f"create them, or set {PREFIX}KAFKA_CREATE_TOPICS=true"
        raise Unreachable(f"Kafka lacks the topics {', '.join(missing)}: {hint}")


def database_trouble(settings: Settings, error: Exception) -> Exception:
    """Return `Unreachable` with a message for the user; return a defect as it is."""
    from service.faults import MISSING_OBJECT_STATES, Kind, read_fault

    fault = read_fault(error)
    if fault.sqlstate in _NO_SUCH_TABLE:
        return Unreachable(f"The database is not migrated ({fault.message}). Run: levelsync migrate")
    if fault.sqlstate == _NO_RIGHT:
        return Unreachable(
            f"The database user of {PREFIX}DATABASE_URL lacks a right: {fault.message}. "
            "`levelsync doctor` names every missing right; deploy/postgresql/rights.sql grants them"
        )
    if fault.sqlstate in MISSING_OBJECT_STATES:
        return Unreachable(f"The database is not as levelsync needs it: {fault.message}. Run: levelsync doctor")
    if fault.kind is Kind.TRANSIENT or fault.sqlstate[:2] in {"28", "3D"}:  # no such user, no such database
        return Unreachable(
            f"PostgreSQL cannot be used at {database_address(settings)}: {fault.message}. "
            f"Set {PREFIX}DATABASE_URL, {_UP}"
        )
    return error


async def kafka_trouble(settings: Settings, error: Exception) -> Unreachable:
    """Return `Unreachable` with the address, the reason why Kafka cannot be used, and what to do."""
    from service.stream.diagnosis import NOTHING_ANSWERS, diagnose

    found = await diagnose(settings) or f"{settings.kafka_bootstrap_servers}: {str(error) or type(error).__name__}"
    advice = f". Set {PREFIX}KAFKA_BOOTSTRAP_SERVERS, {_UP}" if NOTHING_ANSWERS in found else ""
    return Unreachable(f"Kafka cannot be used at {found}{advice}")


def database_address(settings: Settings) -> str:
    """Return host, port and database, without user and password."""
    from service.store.url import database_url

    return database_url(settings).address
