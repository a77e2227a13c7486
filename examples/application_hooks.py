"""The application's two hooks (R26): what happened goes into an outbox, in the transaction in which it happened.

`update_progress()` and `advance_license()` write the level and the event together, so neither is ever there without
the other. `relay()` brings the events to Kafka. With `levelsync up` running in this folder:

    set -a; . .levelsync/up.env; set +a
    python examples/application_hooks.py
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiokafka import AIOKafkaProducer
from sqlalchemy import JSON, BigInteger, Integer, delete, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from events import Event, LicenseAdvanced, ProgressLeveledUp

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
    this_pair = (Progress.student_id == user_id, Progress.specialization_id == specialization)
    row = session.scalars(select(Progress).where(*this_pair).with_for_update()).one()
    before = row.current_level or 0
    if to_level <= before:
        return
    row.current_level = to_level
    put(session, ProgressLeveledUp(**_rise(user_id, specialization, before, to_level), source="/app/progress"))


def advance_license(session: Session, user_id: int, specialization: str, advanced_by: int, reason: str) -> None:
    """Raise the license by one. The application goes on to write its own row of `license_progressions`."""
    this_pair = (License.user_id == user_id, License.specialization_type == specialization)
    row = session.scalars(select(License).where(*this_pair).with_for_update()).one()
    before, row.current_level = row.current_level, row.current_level + 1
    row.max_achieved_level = max(row.max_achieved_level, row.current_level)
    rise = _rise(user_id, specialization, before, row.current_level)
    put(session, LicenseAdvanced(**rise, advanced_by=advanced_by, reason=reason, source="/app/licenses"))


# A demotion is no event, since events only raise (law 2). An application that lowers a level lowers one side and then,
# in the same hook, calls levelsync's sync in that side's direction, which remembers the decision. The sync,
# `ProgressLicenseSyncService`, comes with a later release.


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
    and the commit publishes the same events again, under the same ids, which changes nothing (law 1).
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


async def main() -> None:
    """Call both hooks for user 42 and relay what they say."""
    url = make_url(os.environ["LEVELSYNC_DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(OutboxRow.__table__.create, checkfirst=True)  # type: ignore[attr-defined]
    async with AsyncSession(engine) as session, session.begin():
        await session.run_sync(update_progress, 42, "PLAYER", 7)
        await session.run_sync(advance_license, 42, "COACH", 2, "Practical exam passed")
    async with AIOKafkaProducer(
        bootstrap_servers=os.environ["LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS"], acks="all"
    ) as producer:
        print(f"{await relay(engine, producer)} events relayed")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
