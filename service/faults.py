"""Classify database errors by SQLSTATE: what to do about each of them (law 4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
_RECORD_CLASSES = frozenset({"22", "23", "44"})
_NOT_AS_DECIDED = "LS101"
"""Raised by our stored functions when a row does not contain the level that was written."""
_RECORD_STATES = frozenset({"P0001", _NOT_AS_DECIDED})
_CURRICULUM_CHANGED = "LS001"
"""Raised by our stored functions when the specializations differ from those that the batch was decided with."""
_UNIQUE_VIOLATION = "23505"
_LOCK_NOT_AVAILABLE = "55P03"
_NOT_NULL_VIOLATION = "23502"
READ_ONLY = "25006"
"""The SQLSTATE of a write where the server became a standby, or the connection leads to one."""
MISSING_OBJECT_STATES = frozenset({"42P01", "3F000", "42703", "42883"})
"""The SQLSTATEs of a missing table, schema, column or function. The application or a migration has changed it."""
_UNREACHABLE = (OSError, TimeoutError, PoolTimeout, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)


class Kind(Enum):
    """The kind of an error, which determines what to do about it."""

    TRANSIENT = "database_unavailable"
    """A transient fault. Retry for as long as it lasts."""
    CONFLICT = "conflict"
    """Another transaction wrote the row first. Decide again."""
    RECORD = "record"
    """The fault of one record. Find the record and store it as a dead letter."""
    INSTALLATION = "installation"
    """A fault that a person has to repair. Retry and report it; never store a dead letter."""


class InstallationFault(Exception):  # noqa: N818 - "fault" is the law's own word
    """A person has to repair the installation before work can continue. The text names what to repair."""


class DecideAgain(Exception):  # noqa: N818 - names what to do, not what went wrong
    """An insert conflicted with a row that did not exist when the batch was decided (law 1)."""


class NotAsDecided(Exception):  # noqa: N818 - as above
    """After the write a row does not contain the decided level, because a trigger of the application changed it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A classified database error: its kind, SQLSTATE ('' if it has none), constraint and the server's message."""

    kind: Kind
    sqlstate: str
    constraint: str
    message: str

    @property
    def waits(self) -> bool:
        """Whether another session held a lock for longer than the statement's `lock_timeout`."""
        return self.sqlstate == _LOCK_NOT_AVAILABLE


def read_fault(error: BaseException) -> Fault:
    """Classify `error`. It raises nothing; an unknown error is a fault of the installation."""
    cause = _server_error(error)
    sqlstate = str(getattr(cause, "sqlstate", "") or "")
    constraint = str(getattr(cause, "constraint_name", "") or "")
    return Fault(_kind(error, cause, sqlstate), sqlstate, constraint, _message(cause))


def _server_error(error: BaseException) -> BaseException:
    """Return the asyncpg exception that SQLAlchemy wraps, or the error itself."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _kind(error: BaseException, cause: BaseException, sqlstate: str) -> Kind:
    if isinstance(error, DecideAgain) or sqlstate in {_UNIQUE_VIOLATION, _CURRICULUM_CHANGED}:
        return Kind.CONFLICT
    if sqlstate == _NOT_NULL_VIOLATION:
        return Kind.INSTALLATION
    if isinstance(error, NotAsDecided) or sqlstate[:2] in _RECORD_CLASSES or sqlstate in _RECORD_STATES:
        return Kind.RECORD
    if sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate == READ_ONLY:
        return Kind.TRANSIENT
    lost = isinstance(error, OperationalError | InterfaceError) and not sqlstate
    disconnected = isinstance(error, DBAPIError) and error.connection_invalidated
    if not sqlstate and (isinstance(cause, _UNREACHABLE) or lost or disconnected):
        return Kind.TRANSIENT
    return Kind.INSTALLATION


def _message(cause: BaseException) -> str:
    """Return the server's message and detail on one line, without NUL, which PostgreSQL's text cannot contain."""
    detail = getattr(cause, "detail", None)
    text = f"{cause}" if not detail or str(detail) in str(cause) else f"{cause} ({detail})"
    return " ".join((text or type(cause).__name__).replace("\0", "").split())[:2000]
