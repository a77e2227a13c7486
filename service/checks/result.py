"""Results of checks, the decorator that creates checks, and running checks as a script."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import InstallationFault, read_fault
from service.settings import Settings, SettingsError, load_settings
from service.store.engine import make_engine

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check: its name, whether it passed, what was found, and what to do if it did not pass."""

    name: str
    passed: bool
    detail: str
    fix: str = ""
    warns: bool = False
    """Whether a person should look at it although it passed."""


Checker = Callable[[AsyncConnection], Awaitable[Check]]
_Look = Callable[Concatenate[AsyncConnection, P], Awaitable[str]]
_Checks = Callable[Concatenate[AsyncConnection, P], Awaitable[Check]]


class CheckFailed(Exception):  # noqa: N818 - a finding, not an error
    """A check did not pass. The text says what was found. `fix` says what to do, instead of the check's own advice."""

    def __init__(self, detail: str, fix: str = "") -> None:
        super().__init__(detail)
        self.fix = fix


class CheckWarned(Exception):  # noqa: N818 - a finding, not an error
    """A check passed with a warning. The text says what a person should look at."""


def check(name: str, fix: str) -> Callable[[_Look[P]], _Checks[P]]:
    """Turn a function into a check. The function returns what it found, or raises CheckFailed or CheckWarned.

    It runs in a savepoint that is rolled back, so that a check changes nothing and does not affect other checks.
    A check does not raise, because an error of the database is a failed check too.
    """

    def decorate(look: _Look[P]) -> _Checks[P]:
        @wraps(look)
        async def checked(conn: AsyncConnection, /, *args: P.args, **kwargs: P.kwargs) -> Check:
            try:
                async with conn.begin_nested() as savepoint:
                    detail = await look(conn, *args, **kwargs)
                    await savepoint.rollback()
            except CheckWarned as found:
                return Check(name, passed=True, detail=str(found), fix=fix, warns=True)
            except CheckFailed as found:
                return Check(name, passed=False, detail=str(found), fix=found.fix or fix)
            except InstallationFault as found:
                return Check(name, passed=False, detail=str(found), fix=fix)
            except SQLAlchemyError as error:
                return Check(name, passed=False, detail=read_fault(error).message, fix=fix)
            return Check(name, passed=True, detail=detail)

        return checked

    return decorate


def run(checkers: Sequence[Checker]) -> int:
    """Run checks on the configured database. Return the exit code: 0 when all passed, else 1."""
    try:
        checks = asyncio.run(_make(load_settings(), checkers))
    except (SettingsError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"The database cannot be checked: {error}\n")
        return 1
    for check in checks:
        sys.stdout.write(line(check) + "\n")
    return 0 if all(check.passed for check in checks) else 1


def line(check: Check) -> str:
    """Return a check as a line: a mark, its name, PASS or FAIL, what was found, and what to do."""
    mark, verdict = ("✅", "PASS") if check.passed else ("❌", "FAIL")
    return f"{mark} {check.name}: {verdict} ({check.detail})" + (f" {check.fix}" if check.fix else "")


async def _make(settings: Settings, checkers: Sequence[Checker]) -> list[Check]:
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.connect() as conn:
            return [await checker(conn) for checker in checkers]
    finally:
        await engine.dispose()
