"""The application's hooks write level and event in one transaction."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.orm import Session

from events import LicenseAdvanced, Received, read

EXAMPLES = Path(__file__).parents[2] / "examples"


def _hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("application_hooks", EXAMPLES / "application_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # SQLAlchemy looks annotations up there
    spec.loader.exec_module(module)
    return module


hooks = _hooks()


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


def test_rolled_back_hook_says_nothing(session: Session) -> None:
    hooks.update_progress(session, 42, "PLAYER", 7)
    session.rollback()
    assert session.scalar(select(func.count()).select_from(hooks.OutboxRow)) == 0
    assert session.scalar(select(hooks.Progress.current_level)) == 4


def test_progress_that_reaches_no_new_level_says_nothing(session: Session) -> None:
    """XP alone is not an event."""
    hooks.update_progress(session, 42, "PLAYER", 4)
    assert _outbox(session) == []


def test_a_writer_of_both_rows_locks_the_progress_first(session: Session) -> None:
    """In the order of levelsync's own locks. The rows agree at the commit, so there is no event."""
    session.add(hooks.License(user_id=42, specialization_type="PLAYER", current_level=4, max_achieved_level=4))
    session.flush()
    asked: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda _conn, _cursor, sql, *_: asked.append(sql))
    hooks.raise_both(session, 42, "PLAYER", 6)
    locks = [sql for sql in asked if sql.startswith("SELECT")]
    assert ["specialization_progress" in sql for sql in locks] == [True, False]
    session.commit()
    assert session.scalar(select(hooks.Progress.current_level)) == 6
    raised = select(hooks.License.max_achieved_level).where(hooks.License.specialization_type == "PLAYER")
    assert session.scalar(raised) == 6
    assert _outbox(session) == []
