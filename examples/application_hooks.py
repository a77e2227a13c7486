"""The application's hooks: every level that it writes leaves an event in an outbox, in the same transaction.

`update_progress()` and `advance_license()` write the level and the event together, so neither is ever there without
the other, and `relay()` brings the events to Kafka. `raise_both()` shows the order of locks for code that writes both
rows. `demote()` lowers a pair, which no event can do. With `levelsync up` running in this folder:

    set -a; . .levelsync/up.env; set +a
    python examples/application_hooks.py

The arguments are a user and two specializations of your database, 42 PLAYER COACH by default. Publishing needs the
package `events` alone (`pip install levelsync`); `demote()` needs `levelsync[service]`.
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
    """The application's own base. Its tables have more columns than the hooks need."""


class Progress(Base):
    """How far a user is in a specialization."""

    __tablename__ = "specialization_progress"
    id: Mapped[int] = mapped_column(primary_key=True)
    student_id: Mapped[int]
    specialization_id: Mapped[str]
    current_level: Mapped[int | None]


class License(Base):
    """The level that a user's license shows."""

    __tablename__ = "user_licenses"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    specialization_type: Mapped[str]
    current_level: Mapped[int]
    max_achieved_level: Mapped[int]


class OutboxRow(Base):
    """An event on its way to Kafka: the application's own table, made by a migration of its own."""

    __tablename__ = "application_outbox"
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    topic: Mapped[str]
    key: Mapped[bytes]
    value: Mapped[bytes]
    headers: Mapped[list[Any]] = mapped_column(JSON)


def update_progress(session: Session, user_id: int, specialization: str, to_level: int) -> None:
    """Write the level that the user's XP and sessions have reached; one event, however many levels it is."""
    row = lock_progress(session, user_id, specialization)
    before = row.current_level or 0
    if to_level <= before:
        return
    row.current_level = to_level
    put(session, ProgressLeveledUp(**_rise(user_id, specialization, before, to_level), source="/app/progress"))


def advance_license(session: Session, user_id: int, specialization: str, advanced_by: int, reason: str) -> None:
    """Raise the license by one. The application goes on to write its own row of `license_progressions`."""
    row = lock_license(session, user_id, specialization)
    before, row.current_level = row.current_level, row.current_level + 1
    row.max_achieved_level = max(row.max_achieved_level, row.current_level)
    rise = _rise(user_id, specialization, before, row.current_level)
    put(session, LicenseAdvanced(**rise, advanced_by=advanced_by, reason=reason, source="/app/licenses"))


def raise_both(session: Session, user_id: int, specialization: str, to_level: int) -> None:
    """Raise both rows together: the progress is locked first, as levelsync does, or the two could deadlock.

    The rows agree at the commit, so levelsync needs no event of this.
    """
    progress = lock_progress(session, user_id, specialization)
    held = lock_license(session, user_id, specialization)
    progress.current_level = max(progress.current_level or 0, to_level)
    held.current_level = max(held.current_level, progress.current_level)
    held.max_achieved_level = max(held.max_achieved_level, held.current_level)


async def demote(engine: AsyncEngine, user_id: int, specialization: str, to_level: int, decided_by: int) -> None:
    """Lower both rows to a level. Events only raise, so levelsync itself writes this, and remembers when.

    What was published before raises the pair no more, however late it comes. Code that has lowered one row by itself
    calls a sync in that row's direction after its commit, which remembers it too. Without `levelsync[service]`, the
    command is `levelsync sync USER --specialization X --level N`.
    """
    done = await ProgressLicenseSyncService(engine).set_level(user_id, specialization, to_level, decided_by)
    if not done.success:
        raise RuntimeError(done.message)


def lock_progress(session: Session, user_id: int, specialization: str) -> Progress:
    """Lock the pair's progress until the transaction ends."""
    this_pair = (Progress.student_id == user_id, Progress.specialization_id == specialization)
    return session.scalars(select(Progress).where(*this_pair).with_for_update()).one()


def lock_license(session: Session, user_id: int, specialization: str) -> License:
    """Lock the pair's license until the transaction ends."""
    this_pair = (License.user_id == user_id, License.specialization_type == specialization)
    return session.scalars(select(License).where(*this_pair).with_for_update()).one()


def _rise(user_id: int, specialization: str, before: int, after: int) -> dict[str, Any]:
    return {"user_id": user_id, "specialization": specialization, "from_level": before, "to_level": after}


def put(session: Session, event: Event) -> None:
    """Add the event to the caller's transaction. The lock on the pair's row keeps a pair's events in order."""
    topic, key, value, headers = event.to_kafka()
    texts = [[name, text.decode()] for name, text in headers]
    session.add(OutboxRow(topic=topic, key=key, value=value, headers=texts))


async def relay(engine: AsyncEngine, producer: AIOKafkaProducer, limit: int = 500) -> int:
    """Bring the oldest events to Kafka, in order, and take them out of the outbox; return how many.

    One relay works at a time, or a second one could overtake the first; any number may stand by. A crash between Kafka
    and the commit publishes the same events again, under the same ids, which changes nothing.
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
    """By their ids, not up to the last one: a smaller id may have been committed meanwhile."""
    await connection.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids)))


async def main(user_id: int, player: str, coach: str) -> None:
    """Call each hook once and relay what they say."""
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
    arguments = argparse.ArgumentParser(description="Call each hook once and relay what they say.")
    arguments.add_argument("user_id", nargs="?", type=int, default=42)
    arguments.add_argument("player", nargs="?", default="PLAYER")
    arguments.add_argument("coach", nargs="?", default="COACH")
    asyncio.run(main(**vars(arguments.parse_args())))
