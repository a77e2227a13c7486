"""Asking before something that cannot be taken back."""

from __future__ import annotations

import signal
import sys

import typer

from service.cli.exits import SaidNo, WrongUse


def somebody_is_there() -> bool:
    """Return whether a terminal is there, so that a question can be answered."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask somebody at a terminal.

    Raises:
        WrongUse: there is nobody to ask, and no --yes.
        SaidNo: they did not want it.
    """
    if yes:
        return
    if not somebody_is_there():
        raise WrongUse(f"{question} Nobody can be asked here: add --yes")
    asyncios = signal.signal(signal.SIGINT, signal.default_int_handler)  # its own waits for its loop, which waits here
    try:
        if not typer.confirm(question, err=True):
            raise SaidNo("nothing was done")
    finally:
        signal.signal(signal.SIGINT, asyncios)
