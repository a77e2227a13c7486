"""A new PostgreSQL data folder, whole or not at all, with a password of its own inside."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from service.embedded.process import EmbeddedError

SUPERUSER = "postgres"
_PASSWORD_FILE = "superuser-password"  # noqa: S105 - a file's name
_TIMEOUT_SECONDS = 60
# `password` and not SCRAM: over loopback nothing is gained, and clients in Python spend milliseconds a connection.
_OPTIONS = ["-U", SUPERUSER, "-E", "UTF8", "--no-locale", "--auth-local=reject", "--auth-host=password"]


def initialise(data: Path, programs: Path, account: tuple[int, int] | None) -> None:
    """Make the data folder `data`, which is empty, as `account` (None: our own).

    It is made beside its place and moved there at the end: who is killed half-way leaves nothing that looks ready.

    Raises:
        EmbeddedError: with what `initdb` says.
    """
    new = data.with_name(f"{data.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password = _new_password(data.with_name(f"{data.name}.password"), account)
    if account is not None:
        os.chown(new, *account)
    try:
        _initdb([str(programs / "initdb"), "-D", str(new), *_OPTIONS, f"--pwfile={password}"], account)
        password.rename(new / _PASSWORD_FILE)
        new.rename(data)
    finally:
        password.unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)


def read_password(data: Path) -> str:
    """Give the superuser's password."""
    return (data / _PASSWORD_FILE).read_text(encoding="utf-8").strip()


def _new_password(file: Path, account: tuple[int, int] | None) -> Path:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(secrets.token_urlsafe(24) + "\n")
    if account is not None:
        os.chown(file, *account)
    return file


def _initdb(command: list[str], account: tuple[int, int] | None) -> None:
    user: dict[str, Any] = {} if account is None else {"user": account[0], "group": account[1], "extra_groups": []}
    result = subprocess.run(  # noqa: S603 - PostgreSQL's own program
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, cwd="/", **user
    )
    if result.returncode != 0:
        raise EmbeddedError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")
