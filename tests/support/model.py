"""The laws as a few dictionaries: the tables after records were applied one by one.

The model shares no code with the service. A record is what a publisher meant: (kind, user, specialization, to_level,
time, source, id), or a bad one with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

LEVELED_UP, ADVANCED = "leveled-up", "license-advanced"
Pair = tuple[int, str]


@dataclass(frozen=True)
class Meant:
    """One record as its publisher meant it. `bad` is the reason of its dead letter, or ''."""

    kind: str
    user: int
    specialization: str
    to_level: int
    at: datetime
    source: str
    id: str
    bad: str = ""

    @property
    def pair(self) -> Pair:
        return (self.user, self.specialization)


@dataclass
class Model:
    """The two tables' levels, the history, the fences, and the dead letters' reasons by record id."""

    maximum: dict[str, int]
    users: set[int]
    licenses: dict[Pair, int] = field(default_factory=dict)
    progress: dict[Pair, int] = field(default_factory=dict)
    history: list[tuple[Pair, int, int, datetime, str]] = field(default_factory=list)
    fences: dict[Pair, datetime] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)

    def apply(self, meant: Meant) -> None:
        """Set ``level := greatest(level, to_level)``, unless the record is bad or a later decision exists."""
        reason = meant.bad or self._refusal(meant)
        if reason:
            self.letters[meant.id] = reason
        elif self.fences.get(meant.pair) is None or meant.at > self.fences[meant.pair]:
            self._raise(meant)

    def sync(self, pair: Pair, direction: str, at: datetime, cause: str) -> None:
        """Believe one side of a pair: the other side gets its level, and older events no longer count."""
        believed, other = self.licenses, self.progress
        if direction == "progress_to_license":
            believed, other = other, believed
        if pair not in believed:
            return
        if other is self.licenses and other.get(pair) != believed[pair]:
            self.history.append((pair, other.get(pair, 0), believed[pair], at, cause))
        other[pair] = believed[pair]
        self.fences[pair] = at

    def _refusal(self, meant: Meant) -> str:
        if meant.specialization not in self.maximum:
            return "unknown_specialization"
        if meant.to_level > self.maximum[meant.specialization]:
            return "level_out_of_range"
        fenced = meant.pair in self.fences and meant.at <= self.fences[meant.pair]
        return "" if meant.user in self.users or fenced else "unknown_user"

    def _raise(self, meant: Meant) -> None:
        table = self.licenses if meant.kind == LEVELED_UP else self.progress
        level = table.get(meant.pair, 0)
        if meant.to_level <= level:
            return
        table[meant.pair] = meant.to_level
        if meant.kind == LEVELED_UP:
            reason = f"ProgressLeveledUp {meant.source} {meant.id}"
            self.history.append((meant.pair, level, meant.to_level, meant.at, reason))
