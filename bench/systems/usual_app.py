"""The process of `bench.systems.usual`: `python -m bench.systems.usual_app TOPIC`."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import datetime
from typing import Any

import uvloop
from faststream import FastStream, Header
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from sqlalchemy import DateTime, ForeignKey, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.settings import load_settings
from service.store.engine import make_engine


class Base(DeclarativeBase):
    """The base of the models of the application's tables."""

    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 - the form that SQLAlchemy documents


class License(Base):
    """A row of `user_licenses`."""

    __tablename__ = "user_licenses"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    specialization_type: Mapped[str]
    current_level: Mapped[int]
    max_achieved_level: Mapped[int]
    started_at: Mapped[datetime]
    last_advanced_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None] = mapped_column(server_default=func.now(), onupdate=func.now())


class Progression(Base):
    """A row of `license_progressions`."""

    __tablename__ = "license_progressions"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_license_id: Mapped[int] = mapped_column(ForeignKey("user_licenses.id"))
    from_level: Mapped[int]
    to_level: Mapped[int]
    advancement_reason: Mapped[str]
    advanced_at: Mapped[datetime]


class LeveledUp(BaseModel):
    """The body of a message."""

    user_id: int
    specialization: str
    to_level: int


def make_app(topic: str) -> FastStream:
    """Return the application with its handler, broker and database."""
    settings = load_settings()
    sessions = async_sessionmaker(make_engine(settings))
    broker = KafkaBroker(settings.kafka_bootstrap_servers)

    @broker.subscriber(topic, group_id=settings.kafka_group_id, auto_offset_reset="earliest")
    async def on_leveled_up(
        event: LeveledUp,
        at: str = Header("ce_time"),
        source: str = Header("ce_source"),
        id: str = Header("ce_id"),  # noqa: A002 - its name in CloudEvents
    ) -> None:
        async with sessions.begin() as session:
            await _raise(session, event, datetime.fromisoformat(at), f"ProgressLeveledUp {source} {id}")

    return FastStream(broker)


async def _raise(session: AsyncSession, event: LeveledUp, at: datetime, reason: str) -> None:
    mine = (License.user_id == event.user_id, License.specialization_type == event.specialization)
    license_: Any = await session.scalar(select(License).where(*mine).with_for_update())
    before = license_.current_level if license_ else 0
    if event.to_level <= before:
        return
    if license_ is None:
        license_ = License(user_id=event.user_id, specialization_type=event.specialization, started_at=at)
        session.add(license_)
    license_.current_level = license_.max_achieved_level = event.to_level
    license_.last_advanced_at = at
    await session.flush()
    step = {"user_license_id": license_.id, "from_level": before, "to_level": event.to_level}
    session.add(Progression(**step, advancement_reason=reason, advanced_at=at))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(make_app(sys.argv[1]).run())
