"""What a check gives back, and the decorator that makes a function one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.faults import InstallationFault, read_fault

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
