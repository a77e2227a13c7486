"""Hooks for the application: each writes a level and adds its event to an outbox, in the same transaction.

`update_progress()` and `advance_license()` write the level and the event together, so neither exists without the
other. `relay()` publishes the events to Kafka. `raise_both()` shows the order of locks for code that writes both rows.
`demote()` lowers a pair, which no event can do. While `levelsync up` runs in this folder:

    set -a; . .levelsync/up.env; set +a
    python examples/application_hooks.py

The arguments are a user and two specializations of your database, 42 PLAYER COACH by default. Publishing needs only the
package `events` (`pip install levelsync`), and `demote()` needs `levelsync[service]`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

from aiokafka import AIOKafkaProducer
from sqlalchemy import JSON, BigInteger, Integer, delete, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from events import Event, LicenseAdvanced, ProgressLeveledUp
from service.sync import ProgressLicenseSyncService

RELAY_LOCK = 4_242_001  # any number that the application's other advisory locks do not use


class Base(DeclarativeBase):
    """The application's declarative base. Its tables have more columns than the hooks need."""


class Progress(Base):
    """The progress of a user in a specialization."""

    __tablename__ = "specialization_progress"
    id: Mapped[int] = mapped_column(primary_key=True)
    student_id: Mapped[int]
    specialization_id: Mapped[str]
    current_level: Mapped[int | None]


class License(Base):
    """The license of a user in a specialization."""

    __tablename__ = "user_licenses"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    specialization_type: Mapped[str]
    current_level: Mapped[int]
    max_achieved_level: Mapped[int]


class OutboxRow(Base):
    """An event that is not published yet. A migration of the application creates this table."""

    __tablename__ = "application_outbox"
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    topic: Mapped[str]
    key: Mapped[bytes]
    value: Mapped[bytes]
    headers: Mapped[list[Any]] = mapped_column(JSON)


def update_progress(session: Session, user_id: int, specialization: str, to_level: int) -> None:
    """Write the level that the user's XP and sessions have reached, and one event, however many levels it rose."""
    row = lock_progress(session, user_id, specialization)
    before = row.current_level or 0
    if to_level <= before:
        return
    row.current_level = to_level
    fields = _event_fields(user_id, specialization, before, to_level)
    add_to_outbox(session, ProgressLeveledUp(**fields, source="/app/progress"))


def advance_license(session: Session, user_id: int, specialization: str, advanced_by: int, reason: str) -> None:
    """Raise the license by one level. The application then writes its own row of `license_progressions`."""
    row = lock_license(session, user_id, specialization)
    before, row.current_level = row.current_level, row.current_level + 1
    row.max_achieved_level = max(row.max_achieved_level, row.current_level)
    fields = _event_fields(user_id, specialization, before, row.current_level)
    add_to_outbox(session, LicenseAdvanced(**fields, advanced_by=advanced_by, reason=reason, source="/app/licenses"))


def raise_both(session: Session, user_id: int, specialization: str, to_level: int) -> None:
    """Raise both rows together, and lock the progress first.

    levelsync locks in the same order, so the two cannot deadlock. The rows agree at the commit, so no event is needed.
    """
    progress_row = lock_progress(session, user_id, specialization)
    license_row = lock_license(session, user_id, specialization)
    progress_row.current_level = max(progress_row.current_level or 0, to_level)
    license_row.current_level = max(license_row.current_level, progress_row.current_level)
    license_row.max_achieved_level = max(license_row.max_achieved_level, license_row.current_level)


async def demote(engine: AsyncEngine, user_id: int, specialization: str, to_level: int, decided_by: int) -> None:
    """Lower both rows to a level. Events only raise levels, so levelsync writes this itself and records the time.

    Earlier events do not raise the pair again, however late they arrive. Code that has already lowered one row calls a
    sync in that row's direction after its commit, which records the time too. Without `levelsync[service]`, run
    `levelsync sync USER --specialization X --level N`.

    Raises:
        RuntimeError: levelsync did not write the level; the text says why.
    """
    done = await ProgressLicenseSyncService(engine).set_level(user_id, specialization, to_level, decided_by)
    if not done.success:
        raise RuntimeError(done.message)


def lock_progress(session: Session, user_id: int, specialization: str) -> Progress:
    """Lock the pair's progress until the transaction ends."""
    pair_filter = (Progress.student_id == user_id, Progress.specialization_id == specialization)
    return session.scalars(select(Progress).where(*pair_filter).with_for_update()).one()


def lock_license(session: Session, user_id: int, specialization: str) -> License:
    """Lock the pair's license until the transaction ends."""
    pair_filter = (License.user_id == user_id, License.specialization_type == specialization)
    return session.scalars(select(License).where(*pair_filter).with_for_update()).one()


def _event_fields(user_id: int, specialization: str, before: int, after: int) -> dict[str, Any]:
    return {"user_id": user_id, "specialization": specialization, "from_level": before, "to_level": after}


def add_to_outbox(session: Session, event: Event) -> None:
    """Add the event to the outbox in the caller's transaction. The lock on the pair's row keeps its events in order."""
    topic, key, value, headers = event.to_kafka()
    text_headers = [[name, text.decode()] for name, text in headers]
    session.add(OutboxRow(topic=topic, key=key, value=value, headers=text_headers))


async def relay(engine: AsyncEngine, producer: AIOKafkaProducer, limit: int = 500) -> int:
    """Publish the oldest events to Kafka, in order, and delete them from the outbox. Return their number.

    Only one relay works at a time, because a second one could overtake the first. Any number may wait to take over. A
    crash after the publishing and before the commit publishes the same events again with the same ids, which changes
    nothing.
    """
    async with engine.begin() as connection:
        if not await connection.scalar(select(func.pg_try_advisory_xact_lock(RELAY_LOCK))):
            return 0
        rows = (await connection.execute(select(OutboxRow.__table__).order_by(OutboxRow.id).limit(limit))).all()
        sent = [
            await producer.send(
                row.topic, key=row.key, value=row.value, headers=[(n, t.encode()) for n, t in row.headers]
            )
            for row in rows
        ]
        await asyncio.gather(*sent)
        await _remove(connection, [row.id for row in rows])
    return len(rows)


async def _remove(connection: AsyncConnection, ids: list[int]) -> None:
    """Delete events by their ids: `id <= last` would delete an unsent event whose smaller id was committed later."""
    await connection.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))


async def main(user_id: int, player: str, coach: str) -> None:
    """Call each hook once and relay the events."""
    url = make_url(os.environ["LEVELSYNC_DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(OutboxRow.__table__.create, checkfirst=True)  # type: ignore[attr-defined]
    async with AsyncSession(engine) as session, session.begin():
        await session.run_sync(update_progress, user_id, player, 7)
        await session.run_sync(advance_license, user_id, coach, 2, "Practical exam passed")
    async with AIOKafkaProducer(
        bootstrap_servers=os.environ["LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS"], acks="all"
    ) as producer:
        print(f"{await relay(engine, producer)} events relayed")
    await demote(engine, user_id, player, 5, 2)
    print(f"user {user_id} is at level 5 in {player}, whatever was published before")
    await engine.dispose()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Call each hook once and relay the events.")
    arguments.add_argument("user_id", nargs="?", type=int, default=42)
    arguments.add_argument("player", nargs="?", default="PLAYER")
    arguments.add_argument("coach", nargs="?", default="COACH")
    asyncio.run(main(**vars(arguments.parse_args())))
