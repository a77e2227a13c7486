"""The result of a check, and running checks as a script."""

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
    """One check: its name, whether all is well, what was found and, where it is not well, what to do."""

    name: str
    passed: bool
    detail: str
    fix: str = ""
    warns: bool = False
    """Passed, and yet somebody should look at it."""


Checker = Callable[[AsyncConnection], Awaitable[Check]]
_Look = Callable[Concatenate[AsyncConnection, P], Awaitable[str]]
_Checks = Callable[Concatenate[AsyncConnection, P], Awaitable[Check]]


class CheckFailed(Exception):  # noqa: N818 - a finding, not an error
    """What was found is not well. The text says what; `fix` what to do, where the check's own advice does not."""

    def __init__(self, detail: str, fix: str = "") -> None:
        super().__init__(detail)
        self.fix = fix


class CheckWarned(Exception):  # noqa: N818 - a finding, not an error
    """What was found may be well. The text says what somebody should look at."""


def check(name: str, fix: str) -> Callable[[_Look[P]], _Checks[P]]:
    """Make a check of a function that returns what it found, or raises CheckFailed or CheckWarned.

    It runs in a savepoint that is rolled back: a check leaves no trace, and one that fails spoils no other. What the
    database refuses is a failed check too, so a check itself does not raise.
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
    """Make the checks on the configured database; returns the exit code: 0 when all passed, else 1."""
    try:
        checks = asyncio.run(_make(load_settings(), checkers))
    except (SettingsError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"The database cannot be checked: {error}\n")
        return 1
    for check in checks:
        sys.stdout.write(line(check) + "\n")
    return 0 if all(check.passed for check in checks) else 1


def line(check: Check) -> str:
    """Write a check as the user's own list has it: a mark, its name, PASS or FAIL, and what was found."""
    mark, verdict = ("✅", "PASS") if check.passed else ("❌", "FAIL")
    return f"{mark} {check.name}: {verdict} ({check.detail})" + (f" {check.fix}" if check.fix else "")


async def _make(settings: Settings, checkers: Sequence[Checker]) -> list[Check]:
    engine = make_engine(settings, pool_size=1)
    try:
        async with engine.connect() as conn:
            return [await checker(conn) for checker in checkers]
    finally:
        await engine.dispose()
