"""The folder `.levelsync` of `levelsync up`: one `up` at a time, its secret, and where others find it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.cli.exits import WrongUse
from service.settings import PREFIX, UP_ENV_FILE

FOLDER = UP_ENV_FILE.parent
_LOCK = FOLDER / "up.lock"
_SECRET = FOLDER / "jwt-secret"
_POSTGRES = FOLDER / "postgres"


@contextlib.contextmanager
def owned(*, reset: bool) -> Iterator[Path]:
    """Own the folder while `up` runs; with `reset`, empty it first. Yields PostgreSQL's data folder.

    The lock is the kernel's: however the owner ends, it is free again.

    Raises:
        WrongUse: another `up` runs in this folder, or the folder cannot be written.
    """
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        lock = _LOCK.open("a")
    except OSError as error:
        raise WrongUse(f"cannot write to {FOLDER.absolute()}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongUse(
                f"levelsync up is running in {Path.cwd()} already: Ctrl-C in its terminal stops it"
            ) from None
        UP_ENV_FILE.unlink(missing_ok=True)  # left behind by an `up` that was killed
        if reset:
            shutil.rmtree(_POSTGRES, ignore_errors=True)
            _SECRET.unlink(missing_ok=True)
        try:
            yield _POSTGRES
        finally:
            UP_ENV_FILE.unlink(missing_ok=True)


def has_stopped() -> bool:
    """Return whether `up` has run in this folder and does not run now.

    An `up` that was killed leaves its settings behind, and a lock that anybody can have.
    """
    if not _LOCK.exists():
        return False
    if not UP_ENV_FILE.exists():
        return True
    with contextlib.suppress(OSError), _LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def secret() -> str:
    """Give this folder's own JWT secret; it is made once and stays until a reset."""
    if not _SECRET.exists():
        _write_privately(_SECRET, secrets.token_urlsafe(48))
    return _SECRET.read_text(encoding="utf-8")


def announce(settings: Mapping[str, str]) -> None:
    """Write the settings by which other commands in this folder find what runs here."""
    lines = [f"{PREFIX}{name}={value}\n" for name, value in settings.items()]
    _write_privately(UP_ENV_FILE, "".join(lines))


def _write_privately(path: Path, text: str) -> None:
    """Write a file that is never readable to others, and never half there."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.rename(path)
