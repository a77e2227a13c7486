"""What a database error means for the work in hand (law 4): one table from SQLSTATE to what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_PASSING_CLASSES = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
_RECORD_CLASSES = frozenset({"22", "23", "44"})
_NOT_AS_DECIDED = "LS101"
"""Our own stored functions': a row does not hold the level that was written."""
_RECORD_STATES = frozenset({"P0001", _NOT_AS_DECIDED})
_CHANGED_MEANWHILE = "LS001"
"""Our own stored functions': the specializations are not those that the batch was decided with."""
_UNIQUE_VIOLATION = "23505"
_LOCK_NOT_AVAILABLE = "55P03"
_NOT_NULL_VIOLATION = "23502"
READ_ONLY = "25006"
"""The server became a standby, or the connection leads to one."""
NOT_AS_NEEDED = frozenset({"42P01", "3F000", "42703", "42883"})
"""A table, schema, column or function is missing: the application, or a migration, has changed it."""
_UNREACHABLE = (OSError, TimeoutError, PoolTimeout, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)


class Kind(Enum):
    """What to do about an error."""

    PASSING = "database_unavailable"
    """Try again for as long as it lasts."""
    CONFLICT = "conflict"
    """Somebody else wrote the row first: decide again."""
    RECORD = "record"
    """One record's own fault: find it, make it a dead letter."""
    INSTALLATION = "installation"
    """Try again, and say loudly what has to be repaired; never a dead letter."""


class InstallationFault(Exception):  # noqa: N818 - "fault" is the law's own word
    """Something about the installation has to be repaired before work can go on. Its text says what."""


class DecideAgain(Exception):  # noqa: N818 - names what to do, not what went wrong
    """An insert met a row that was not there when the batch was decided (law 1)."""


class NotAsDecided(Exception):  # noqa: N818 - as above
    """After the write a row does not hold the level that was decided: triggers of the application changed it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A database error, read: its kind, SQLSTATE ('' when there is none), constraint and the server's words."""

    kind: Kind
    sqlstate: str
    constraint: str
    message: str

    @property
    def waits(self) -> bool:
        """Whether somebody else held a lock for longer than the statement would wait."""
        return self.sqlstate == _LOCK_NOT_AVAILABLE


def read_fault(error: BaseException) -> Fault:
    """Say what `error` means. Never raises; what it does not know is a fault of the installation."""
    cause = _server_error(error)
    sqlstate = str(getattr(cause, "sqlstate", "") or "")
    constraint = str(getattr(cause, "constraint_name", "") or "")
    return Fault(_kind(error, cause, sqlstate), sqlstate, constraint, _words(cause))


def _server_error(error: BaseException) -> BaseException:
    """asyncpg's own exception below SQLAlchemy's wrapping, where there is one."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _kind(error: BaseException, cause: BaseException, sqlstate: str) -> Kind:
    if isinstance(error, DecideAgain) or sqlstate in {_UNIQUE_VIOLATION, _CHANGED_MEANWHILE}:
        return Kind.CONFLICT
    if sqlstate == _NOT_NULL_VIOLATION:
        return Kind.INSTALLATION
    if isinstance(error, NotAsDecided) or sqlstate[:2] in _RECORD_CLASSES or sqlstate in _RECORD_STATES:
        return Kind.RECORD
    if sqlstate[:2] in _PASSING_CLASSES or sqlstate == READ_ONLY:
        return Kind.PASSING
    lost = isinstance(error, OperationalError | InterfaceError) and not sqlstate
    disconnected = isinstance(error, DBAPIError) and error.connection_invalidated
    if not sqlstate and (isinstance(cause, _UNREACHABLE) or lost or disconnected):
        return Kind.PASSING
    return Kind.INSTALLATION


def _words(cause: BaseException) -> str:
    """The server's message and detail on one line, without NUL (PostgreSQL text cannot hold it)."""
    detail = getattr(cause, "detail", None)
    text = f"{cause}" if not detail or str(detail) in str(cause) else f"{cause} ({detail})"
    return " ".join((text or type(cause).__name__).replace("\0", "").split())[:2000]
