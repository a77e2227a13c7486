"""The values of a run: its row, its suspects, and the counts of its report (law 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid5

from events import Direction
from service.core.names import HEALABLE, DriftKind, fold

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
"""How long a run is stored, with its ranges and issues."""
FAILED_BECAUSE = "failed_because"
"""A key beside the counts of a range: why the last failed user failed."""
UNCONFIRMED_BY_KIND = "unconfirmed_by_kind"
"""A key beside the counts: the suspects of each kind, in a run that could confirm none. Empty in all other runs."""
_NAMESPACE = UUID("f7a5f3f2-0c2b-4d8e-9f0e-4a1d3c1b7a11")


class RunPhase(StrEnum):
    """The phases of a run, as commands and pages show them."""

    PLANNING = "planning"
    WAITING = "waiting_for_the_appliers"
    SCANNING = "scanning"
    GRACE = "grace"
    CONFIRMING = "confirming"
    HEALING = "healing"


class Step(StrEnum):
    """The steps of a run (`service.reconcile.steps`)."""

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
        """The phase of this step, or None when the run has ended."""
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
    """The passes over a run's ranges. A range's `done_phase` is the number of its last pass, or 0."""

    SCAN = 1
    CONFIRM = 2
    HEAL = 3

    @property
    def word(self) -> Literal["scan", "confirm", "heal"]:
        """The value for `ReconcileChunk.phase`."""
        return _WORDS[self]

    @property
    def step(self) -> Step:
        """The step during this pass."""
        return Step(self.word)


_WORDS: dict[Phase, Literal["scan", "confirm", "heal"]] = {
    Phase.SCAN: "scan",
    Phase.CONFIRM: "confirm",
    Phase.HEAL: "heal",
}


class Suspect(NamedTuple):
    """A pair that differs, with exactly the levels that the scan saw. A range's row stores it in this form."""

    user_id: int
    specialization: str
    kind: str
    progress_level: int | None
    license_level: int | None

    @property
    def healable(self) -> bool:
        """Whether a heal can repair it."""
        return self.kind in HEALABLE

    def is_lowered(self, direction: Direction) -> bool:
        """Return whether a heal lowers one of its levels. The direction `highest` never does."""
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
    """How many levels the run may lower. None means any number."""
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None
    would_stop: bool
    give_up_at: datetime | None
    """Identifies a goal, because it changes with every new one. Each process measures the wait on its own clock."""
    end_offsets: Mapping[str, int] | None
    topic_ids: Mapping[str, str]
    counts: Mapping[str, Any]
    detail: str


@dataclass(frozen=True, slots=True)
class ReportProgress:
    """The progress of a run: the ranges that are done, and the current phase."""

    ranges_done: int = 0
    """Ranges, counted once for each pass that the run makes over them."""
    ranges_total: int = 0
    phase: RunPhase | None = None
    """None: the run has ended."""
    seconds_left: float | None = None
    """Until the phase ends; None: unknown."""
    pairs_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run as every command, endpoint and page shows it, and as `sync.reconcile-completed` publishes it."""

    run_id: UUID
    status: str
    dry_run: bool
    direction: Direction
    specialization: str | None
    user_id: int | None
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None = None
    progress: ReportProgress = ReportProgress()
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    """One number for each name in `COUNTS`."""
    unconfirmed_by_kind: Mapping[str, int] = field(default_factory=dict)
    would_stop: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object: the fields in their order, with the id and the times as text."""
        finished_at = self.finished_at and self.finished_at.isoformat()
        texts = {"run_id": str(self.run_id), "requested_at": self.requested_at.isoformat(), "finished_at": finished_at}
        return asdict(self) | texts


@dataclass(frozen=True, slots=True)
class FoundIssue:
    """A pair that a run found in disagreement, with the levels that the run saw, and what the run did about it."""

    user_id: int
    user_email: str | None
    specialization: str
    issue_type: str
    """A `DriftKind`."""
    progress_level: int | None
    license_level: int | None
    status: str
    detail: str
    """Why the database refused the heal; else empty."""
    seen_at: datetime
    lowered: bool
    """Whether the run lowers one of the pair's levels."""


@dataclass(frozen=True, slots=True)
class Range:
    """One locked range of a run, with its suspects and its counts so far."""

    run: Run
    chunk: int
    suspects: list[Suspect]
    """In a heal, only the next suspects."""
    counts: Mapping[str, Any]


def run_of(row: Any) -> Run:
    """Return the run of a row of `reconcile_runs`."""
    return Run(**{name: getattr(row, name) for name in Run.__slots__} | {"step": Step(row.step)})


def run_id_of(event_id: str, source: str) -> UUID:
    """Return the id of a request's run: the event's id if it is a UUID, else a UUID of its source and id."""
    try:
        return UUID(event_id)
    except ValueError:
        return uuid5(_NAMESPACE, f"{source} {event_id}")


def count_by_label(suspects: Iterable[Suspect]) -> list[list[Any]]:
    """Count pairs by the labels of the gauge `levelsync_drift_pairs`: a list of ``[kind, name, number]``."""
    counted = Counter((suspect.kind, _label(suspect)) for suspect in suspects)
    return [[kind, name, number] for (kind, name), number in sorted(counted.items())]


def add_labels(
    lists: Iterable[Iterable[Sequence[Any]]], less: Iterable[Iterable[Sequence[Any]]] = ()
) -> list[list[Any]]:
    """Add lists of `count_by_label`, and subtract those in `less`."""
    total: Counter[tuple[str, str]] = Counter()
    for sign, group in ((1, lists), (-1, less)):
        for entries in group:
            for kind, name, number in entries:
                total[kind, name] += sign * number
    return [[kind, name, number] for (kind, name), number in sorted(total.items()) if number]


def _label(suspect: Suspect) -> str:
    """Return the specialization as a metric's label. Unknown names share one, to bound the number of labels."""
    if suspect.kind == DriftKind.UNKNOWN_SPECIALIZATION:
        return "unknown"
    return (
        fold(suspect.specialization)
        if suspect.kind in {DriftKind.WRONG_CASE, DriftKind.DUPLICATE}
        else suspect.specialization
    )


def healable(counts: Mapping[str, int]) -> int:
    """Return how many pairs of a report or a range a heal can repair."""
    return sum(counts[kind] for kind in HEALABLE)


def add_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add the counts of ranges. A name that no range has counts 0."""
    total: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    for one in counts:
        total.update({name: number for name, number in one.items() if isinstance(number, int)})
    return dict(total)
