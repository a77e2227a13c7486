"""Shared parts of the commands: settings, questions, the audit log, signals."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from service.cli import output
from service.cli.exits import NotDone, WrongUse

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from service.settings import Settings


def has_terminal() -> bool:
    """Return whether stdin is a terminal, so that somebody can answer a question."""
    return sys.stdin.isatty()


@contextlib.contextmanager
def ctrl_c_at_once() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt at once, because asyncio's handler would wait for its blocked event loop."""
    asyncios = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, asyncios)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a question at the terminal, unless `yes` answers it.

    Raises:
        WrongUse: stdin is not a terminal, and `yes` is not given.
        NotDone: the answer is no.
        KeyboardInterrupt: the answer is Ctrl-C.
    """
    if yes:
        return
    if not has_terminal():
        raise WrongUse(f"{question} This needs a confirmation, and stdin is not a terminal: add --yes")
    try:
        with ctrl_c_at_once():
            agreed = typer.confirm(question, err=True)
    except typer.Abort as aborted:  # Ctrl-C, or the end of the input
        if isinstance(aborted.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        agreed = False
    if not agreed:
        raise NotDone("nothing was done")


def user_name() -> str:
    """Return the name of the user at the terminal."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "cli"


async def record(conn: AsyncConnection, action: str, detail: str = "", **arguments: Any) -> None:
    """Add a row to the audit log, in the transaction of the write that it describes."""
    from service.admin.audit import Actor, Entry

    await Entry(Actor(user_name(), "shell"), action, arguments).done(conn, detail)


T = TypeVar("T")


def run_until_signal(main: Coroutine[Any, Any, T]) -> T | None:
    """Run `main` and return its result. SIGTERM or SIGHUP cancels it once; return None when it has cleaned up.

    Raises:
        KeyboardInterrupt: Ctrl-C cancelled it.
    """
    result, received = asyncio.run(_until_signal(main))
    if received is signal.SIGINT:
        raise KeyboardInterrupt
    return result


async def _until_signal(main: Coroutine[Any, Any, T]) -> tuple[T | None, signal.Signals | None]:
    from service.stream.background import StopSignal

    stop = StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    work = asyncio.create_task(main)
    await stop.or_end_of(work)
    if work.done():
        return work.result(), stop.received
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return None, stop.received


_COMPLETED_WITHIN = 1.0
"""Seconds that a shell waits for a completion."""
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a heading on stdout.")]


def check_one_form(as_json: bool, as_csv: bool) -> None:
    """Check that the options ask for one form of the answer.

    Raises:
        WrongUse: both --json and --csv are given.
    """
    from service.cli.exits import WrongUse

    if as_json and as_csv:
        raise WrongUse("give --json or --csv, not both")


def settings(*, servers: bool = True) -> Settings:
    """Read the settings. Warn about unknown `LEVELSYNC_` names and about parts of the database URL that are ignored.

    `servers` is whether the command needs PostgreSQL or Kafka.

    Raises:
        SettingsError: a value cannot be used.
        Unreachable: the command needs the servers of `levelsync up` in this folder, and they are not running.
    """
    from service.settings import PREFIX, load_settings, unknown_names
    from service.store.url import database_url

    for name, nearest in unknown_names().items():
        output.print_note(f"levelsync: warning: {unknown_sentence(name, nearest)}")
    settings = load_settings()
    if servers:
        _check_up()
    for warning in database_url(settings).warnings:
        output.print_note(f"levelsync: warning: {PREFIX}DATABASE_URL: {warning}")
    return settings


def _check_up() -> None:
    from service.cli.exits import Unreachable
    from service.settings import PREFIX, UP_ENV_FILE, Settings

    if _has_stopped(UP_ENV_FILE):
        configured = Settings(_env_file=".env").model_fields_set
        if not configured & {"database_url", "kafka_bootstrap_servers"}:
            raise Unreachable(
                f"levelsync up has run in {Path.cwd()} but is not running: start it in another terminal, "
                f"or set {PREFIX}DATABASE_URL and {PREFIX}KAFKA_BOOTSTRAP_SERVERS"
            )


def _has_stopped(settings_of_up: Path) -> bool:
    """Return whether `up` has run in this folder and does not run now (`service.cli.servers` has its lock).

    An `up` that was killed leaves its settings file behind, but not its lock.
    """
    lock_file = settings_of_up.with_name("up.lock")
    if not lock_file.exists():
        return False
    if not settings_of_up.exists():
        return True
    with contextlib.suppress(OSError), lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def unknown_sentence(name: str, nearest: str | None) -> str:
    """Return the warning about a name that is not a setting, with the setting that has the most similar name."""
    return f"{name} is not a setting" + (f"; did you mean {nearest}?" if nearest else "")


def complete(values: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that completes an option with these values for the shell."""

    def matching(incomplete: str) -> list[str]:
        return [value for value in values if _begins(value, incomplete)]

    return matching


def specializations(incomplete: str) -> list[str]:
    """Complete the name of a specialization, if the database answers within a second."""
    return [
        name
        for name in _ask_database("SELECT CAST(id AS text) FROM specializations ORDER BY 1")
        if _begins(name, incomplete)
    ]


def run_ids(incomplete: str) -> list[str]:
    """Complete the id of one of the newest runs, if the database answers within a second."""
    newest = "SELECT CAST(id AS text) FROM levelsync.reconcile_runs ORDER BY requested_at DESC LIMIT 20"
    return [run_id for run_id in _ask_database(newest) if _begins(run_id, incomplete)]


def _begins(value: str, incomplete: str) -> bool:
    return value.lower().startswith(incomplete.lower())


def _ask_database(query: str) -> list[str]:
    import asyncio

    from sqlalchemy import text

    from service.cli import reach
    from service.settings import load_settings

    async def ask() -> list[str]:
        async with asyncio.timeout(_COMPLETED_WITHIN), reach.database(load_settings()) as conn:
            return list((await conn.execute(text(query))).scalars())

    try:
        return asyncio.run(ask())
    except Exception:  # noqa: BLE001 - a completion must not print an error
        return []
