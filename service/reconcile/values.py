"""The values of a run: its row, a suspect, the counts of its report (law 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid5

from events import Direction
from service.core.names import HEALABLE, DriftKind, fold

SCANNED, CONFIRMED, HEALED = 1, 2, 3
COUNTS = (
    "scanned",
    "matching",
    *HEALABLE,
    "lowered",
    "needs_decision",
    "unconfirmed",
    "healed",
    "changed_meanwhile",
    "failed",
)
"""The counts of a report, in its order."""
KEPT = timedelta(days=90)
"""How long a run is kept, with its ranges and issues."""
FAILED_BECAUSE = "failed_because"
"""Beside the counts of a range: why the last of its users failed."""
UNCONFIRMED_BY_KIND = "unconfirmed_by_kind"
"""Beside the counts: what a scan saw of each kind, where nothing could be confirmed; empty everywhere else."""
_NAMESPACE = UUID("f7a5f3f2-0c2b-4d8e-9f0e-4a1d3c1b7a11")


class RunPhase(StrEnum):
    """What a run is doing, in people's words with underscores."""

    PLANNING = "planning"
    WAITING = "waiting_for_the_appliers"
    SCANNING = "scanning"
    GRACE = "grace"
    CONFIRMING = "confirming"
    HEALING = "healing"


class Step(StrEnum):
    """What a run's row waits for (`service.reconcile.steps`)."""

    PLAN = "plan"
    SETTLE = "settle"
    SCAN = "scan"
    GRACE = "grace"
    CATCH_UP = "catch_up"
    CONFIRM = "confirm"
    HEAL = "heal"
    DONE = "done"

    @property
    def phase(self) -> RunPhase | None:
        """What people call it; None where the run has ended."""
        return _PHASES.get(self)


_PHASES = {
    Step.PLAN: RunPhase.PLANNING,
    Step.SETTLE: RunPhase.WAITING,
    Step.SCAN: RunPhase.SCANNING,
    Step.GRACE: RunPhase.GRACE,
    Step.CATCH_UP: RunPhase.WAITING,
    Step.CONFIRM: RunPhase.CONFIRMING,
    Step.HEAL: RunPhase.HEALING,
}


class Phase(IntEnum):
    """The passes over a run's ranges."""

    SCAN = SCANNED
    CONFIRM = CONFIRMED
    HEAL = HEALED

    @property
    def word(self) -> Literal["scan", "confirm", "heal"]:
        """As `ReconcileChunk.phase` has it."""
        return _WORDS[self]

    @property
    def step(self) -> Step:
        """The step that waits for the end of this pass."""
        return Step(self.word)


_WORDS: dict[Phase, Literal["scan", "confirm", "heal"]] = {
    Phase.SCAN: "scan",
    Phase.CONFIRM: "confirm",
    Phase.HEAL: "heal",
}


class Suspect(NamedTuple):
    """A pair that a scan saw in disagreement, with exactly the levels that it saw. A range's row keeps it as it is."""

    user_id: int
    specialization: str
    kind: str
    progress_level: int | None
    license_level: int | None

    @property
    def healable(self) -> bool:
        """Whether a write can repair it."""
        return self.kind in HEALABLE

    def falls(self, direction: Direction) -> bool:
        """Return whether a heal gives one of its rows a lower level; `highest` never does."""
        if self.kind != DriftKind.MISMATCHED or self.progress_level is None or self.license_level is None:
            return False
        if direction == "progress_to_license":
            return self.progress_level < self.license_level
        return direction == "license_to_progress" and self.license_level < self.progress_level


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row."""

    id: UUID
    status: str
    phase: int
    step: Step
    direction: Direction
    dry_run: bool
    force: bool
    specialization: str | None
    user_id: int | None
    max_lowered: int | None
    """How many levels may fall; None: any number."""
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None
    would_stop: bool
    give_up_at: datetime | None
    """Changes with every goal; how long a run waits for it, a process counts on its own clock."""
    end_offsets: Mapping[str, int] | None
    topic_ids: Mapping[str, str]
    counts: Mapping[str, Any]
    detail: str


@dataclass(frozen=True, slots=True)
class Range:
    """One range of a run, as its holder found it: what is suspected there, and its counts so far."""

    run: Run
    chunk: int
    suspects: list[Suspect]
    """For a heal, the next ones only."""
    counts: Mapping[str, Any]


def run_of(row: Any) -> Run:
    """The run of a row of `reconcile_runs`."""
    return Run(**{name: getattr(row, name) for name in Run.__slots__} | {"step": Step(row.step)})


def run_id_of(event_id: str, source: str) -> UUID:
    """The id of a request's run: the event's id where that is a UUID, else one made from source and id."""
    try:
        return UUID(event_id)
    except ValueError:
        return uuid5(_NAMESPACE, f"{source} {event_id}")


def by_label(suspects: Iterable[Suspect]) -> list[list[Any]]:
    """Pairs by kind and specialization, as the gauge `levelsync_drift_pairs` has them: ``[kind, name, number]``."""
    counted = Counter((suspect.kind, _label(suspect)) for suspect in suspects)
    return [[kind, name, number] for (kind, name), number in sorted(counted.items())]


def add_labels(
    lists: Iterable[Iterable[Sequence[Any]]], less: Iterable[Iterable[Sequence[Any]]] = ()
) -> list[list[Any]]:
    """Add up what `by_label` gave, less what is gone."""
    total: Counter[tuple[str, str]] = Counter()
    for sign, group in ((1, lists), (-1, less)):
        for entries in group:
            for kind, name, number in entries:
                total[kind, name] += sign * number
    return [[kind, name, number] for (kind, name), number in sorted(total.items()) if number]


def _label(suspect: Suspect) -> str:
    """The specialization as a metric's label: names that are none would make it unbounded."""
    if suspect.kind == DriftKind.UNKNOWN_SPECIALIZATION:
        return "unknown"
    return (
        fold(suspect.specialization)
        if suspect.kind in {DriftKind.WRONG_CASE, DriftKind.DUPLICATE}
        else suspect.specialization
    )


def healable(counts: Mapping[str, int]) -> int:
    """How many pairs of a report or of a range a write can repair."""
    return sum(counts[kind] for kind in HEALABLE)


def add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of a run from those of its ranges; names that no range has are 0."""
    total: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for one in counts:
        total.update({name: number for name, number in one.items() if isinstance(number, int)})
    return dict(total)
