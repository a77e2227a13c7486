"""The examples run as they are, and the application's hooks write level and event in one transaction."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from sqlalchemy import create_engine, func, select
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.orm import Session

from events import LicenseAdvanced, ProgressLeveledUp, Received, read, read_line
from tests.support.repository import ROOT
from tests.support.servers import Kafka

EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))
hooks = importlib.import_module("application_hooks")
MAXIMUM = {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}


def test_sample_events_suit_the_sample_users() -> None:
    events = [read_line(line) for line in (EXAMPLES / "events.jsonl").read_text("utf-8").splitlines()]
    assert Counter(type(event) for event in events) == {ProgressLeveledUp: 8, LicenseAdvanced: 4}
    assert len({event.id for event in events}) == 12
    for event in events:
        assert isinstance(event, ProgressLeveledUp | LicenseAdvanced)
        assert 1 <= event.user_id <= 200
        assert event.to_level <= MAXIMUM[event.specialization]


@pytest.mark.usefixtures("topics")
async def test_hooks_example_relays_both_events(database_url: str, kafka: Kafka) -> None:
    said = await _run("application_hooks.py", kafka, LEVELSYNC_DATABASE_URL=database_url)
    assert said.startswith("2 events relayed\n")
    assert said.endswith("user 42 is at level 5 in PLAYER, whatever was published before\n")
    assert await _published(kafka, 2) == [(LicenseAdvanced, 42, "COACH", 4), (ProgressLeveledUp, 42, "PLAYER", 7)]


@pytest.mark.usefixtures("topics")
async def test_publisher_example_publishes_both_events(kafka: Kafka) -> None:
    said = await _run("publish_with_aiokafka.py", kafka)
    assert said.count(" is in ") == 2
    assert await _published(kafka, 2) == [(LicenseAdvanced, 42, "COACH", 4), (ProgressLeveledUp, 42, "PLAYER", 5)]


async def _run(script: str, kafka: Kafka, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / script),
        env=os.environ | environment | {"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def _published(kafka: Kafka, count: int) -> list[tuple[type, int, str, int]]:
    """Return type, user, specialization and level of the first events of both topics, ordered by topic."""
    names = (ProgressLeveledUp.TOPIC, LicenseAdvanced.TOPIC)
    records: list[Any] = []
    async with AIOKafkaConsumer(
        *names, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        async with asyncio.timeout(30):
            while len(records) < count:
                records.append(await consumer.getone())
    records.sort(key=lambda record: record.topic)
    found: list[Any] = [read(one.topic, one.value, one.headers, one.timestamp).event for one in records]
    return [(type(one), one.user_id, one.specialization, one.to_level) for one in found]


@pytest.fixture
def session() -> Iterator[Session]:
    """The application's tables in SQLite, with user 42 at PLAYER 4 and COACH 3."""
    engine = create_engine("sqlite://")
    hooks.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(hooks.Progress(student_id=42, specialization_id="PLAYER", current_level=4))
        session.add(hooks.License(user_id=42, specialization_type="COACH", current_level=3, max_achieved_level=3))
        session.commit()
        yield session
    engine.dispose()


def _outbox(session: Session) -> list[Received]:
    rows = session.scalars(select(hooks.OutboxRow).order_by(hooks.OutboxRow.id))
    return [read(row.topic, row.value, [(n, t.encode()) for n, t in row.headers], 0) for row in rows]


def test_hooks_write_level_and_event_together(session: Session) -> None:
    hooks.update_progress(session, 42, "PLAYER", 7)
    hooks.advance_license(session, 42, "COACH", 2, "Exam passed")
    session.commit()
    leveled_up, advanced = (received.event for received in _outbox(session))
    assert leveled_up.model_dump() == {"user_id": 42, "specialization": "PLAYER", "to_level": 7, "from_level": 4}
    assert isinstance(advanced, LicenseAdvanced)
    assert (advanced.from_level, advanced.to_level, advanced.advanced_by) == (3, 4, 2)
    assert session.scalar(select(hooks.Progress.current_level)) == 7
    assert session.scalar(select(hooks.License.current_level)) == 4


def test_a_rolled_back_hook_publishes_nothing(session: Session) -> None:
    hooks.update_progress(session, 42, "PLAYER", 7)
    session.rollback()
    assert session.scalar(select(func.count()).select_from(hooks.OutboxRow)) == 0
    assert session.scalar(select(hooks.Progress.current_level)) == 4


def test_progress_without_a_new_level_publishes_nothing(session: Session) -> None:
    hooks.update_progress(session, 42, "PLAYER", 4)
    assert _outbox(session) == []


def test_a_writer_of_both_rows_locks_the_progress_first(session: Session) -> None:
    """In the order of levelsync's own locks. The rows agree at the commit, so there is no event."""
    session.add(hooks.License(user_id=42, specialization_type="PLAYER", current_level=4, max_achieved_level=4))
    session.flush()
    asked: list[str] = []
    sqlalchemy_event.listen(
        session.get_bind(), "before_cursor_execute", lambda _conn, _cursor, sql, *_: asked.append(sql)
    )
    hooks.raise_both(session, 42, "PLAYER", 6)
    locks = [sql for sql in asked if sql.startswith("SELECT")]
    assert ["specialization_progress" in sql for sql in locks] == [True, False]
    session.commit()
    assert session.scalar(select(hooks.Progress.current_level)) == 6
    raised = select(hooks.License.max_achieved_level).where(hooks.License.specialization_type == "PLAYER")
    assert session.scalar(raised) == 6
    assert _outbox(session) == []
