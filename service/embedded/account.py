"""Which account PostgreSQL runs as when we are root: it refuses to run as root."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path

from service.embedded.process import EmbeddedError

_CANDIDATES = ("postgres", "nobody")


def account_for(data: Path) -> tuple[int, int]:
    """User and group id: the owner of `data` where that is not root, else the first account there is.

    Raises:
        EmbeddedError: there is none.
    """
    owner = data.stat()
    if owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise EmbeddedError(f"PostgreSQL does not run as root, and there is no account {' or '.join(_CANDIDATES)}")


def let_through(folder: Path) -> None:
    """Let every account pass through `folder` and those above it (not list or read them)."""
    for path in (folder, *folder.parents):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & stat.S_IXOTH:
            path.chmod(mode | stat.S_IXOTH)
