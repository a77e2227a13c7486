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
        KeyboardInterrupt: they pressed Ctrl-C.
    """
    if yes:
        return
    if not somebody_is_there():
        raise WrongUse(f"{question} Nobody can be asked here: add --yes")
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    asyncios = signal.signal(signal.SIGINT, interrupt)  # its own waits for its loop, which waits here
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C or the end of the input
        if interrupted:
            raise KeyboardInterrupt from None
        agreed = False
    finally:
        signal.signal(signal.SIGINT, asyncios)
    if not agreed:
        raise SaidNo("nothing was done")
