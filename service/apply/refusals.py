"""Telling a bad record from a bad installation: one refusal is the record's fault, twenty in a row are not (law 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.database.faults import Fault, InstallationFault

REFUSALS_IN_A_ROW = 20


class RefusedAll(InstallationFault):
    """The records of twenty users in a row were refused for the same reason."""


@dataclass(slots=True)
class Refusals:
    """The users whose records the database refused in a row for one reason (SQLSTATE and constraint)."""

    why: tuple[str, str] = ("", "")
    users: set[int] = field(default_factory=set)

    def accepted(self) -> None:
        """The database took a record: the row of refusals is broken."""
        self.users = set()

    def refused(self, user_id: int, fault: Fault) -> None:
        """Count one refusal.

        Raises:
            RefusedAll: it is the twentieth user's in a row.
        """
        why = (fault.sqlstate, fault.constraint)
        if why != self.why:
            self.why, self.users = why, set()
        self.users = self.users | {user_id}
        if len(self.users) >= REFUSALS_IN_A_ROW:
            raise RefusedAll(
                f"PostgreSQL refused the records of {len(self.users)} users in a row (SQLSTATE {fault.sqlstate}"
                f"{', constraint ' + fault.constraint if fault.constraint else ''}): {fault.message}"
            )

    def copy(self) -> Refusals:
        """A copy to count on inside a transaction that may be rolled back."""
        return Refusals(self.why, self.users)
