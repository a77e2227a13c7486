"""Why a migration stops, and what it has changed before that."""

from __future__ import annotations

import logging

log = logging.getLogger("levelsync.migrate")


class Stop(Exception):  # noqa: N818 - it stops on purpose, before its revision changes anything
    """A migration met what it must not touch. Its text names it, says why that is needed, and what helps."""


class Changes:
    """What the revisions of one run have changed in the application's tables, in words.

    Alembic runs one migration of a process at a time, and its revisions are modules: there is one list for all.
    """

    def __init__(self) -> None:
        self._done: list[str] = []
        self._pending: list[str] = []

    def add(self, change: str) -> None:
        """Log a change of the revision that runs."""
        log.info("%s", change)
        self._pending.append(change)

    def commit(self, revision: str) -> None:
        """Keep the changes of a revision that is done."""
        self._done.append(": ".join([revision, *["; ".join(self._pending)]]) if self._pending else revision)
        self._pending = []

    def begin(self) -> None:
        """Forget an earlier run."""
        self._done, self._pending = [], []

    @property
    def before(self) -> str:
        """Say what stands although a revision stopped."""
        if not self._done:
            return "Nothing was changed."
        return f"This revision changed nothing. Revisions done before it: {'. '.join(self._done)}."


changes = Changes()
