"""Which Kafka and PostgreSQL the tests run against (docs/testing.md), and their life over a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.infrastructure.servers import Kafka, Postgres
from tests.infrastructure.ways import WAYS, Way

FORCE = "LEVELSYNC_TEST_PROVIDER"


class NoWay(Exception):  # noqa: N818 - its text is the message
    """There is nothing to run the tests against. The text has the reason of each way."""


@dataclass(frozen=True)
class Choice:
    """The way taken, and why each one before it was not."""

    way: Way
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line, for the head and the foot of the run."""
        return f"test provider {self.way.number} of {len(WAYS)}: {self.way.title}"


@dataclass(frozen=True)
class Provider:
    """What runs for the session."""

    choice: Choice
    kafka: Kafka
    postgres: Postgres
    folder: Path
    """For data; gone at the end of the session."""


def choose(environment: Mapping[str, str], ways: Sequence[Way] = WAYS) -> Choice:
    """Take the first way that is there, or the one that LEVELSYNC_TEST_PROVIDER forces.

    Raises:
        NoWay: none is there, or the forced one is not.
    """
    forced = environment.get(FORCE, "")
    passed_over: list[str] = []
    for way in ways:
        if forced not in {"", str(way.number)}:
            continue
        reason = way.unavailable()
        if not reason:
            return Choice(way, tuple(passed_over))
        passed_over.append(f"{way.number}: {reason}")
    asked = f"{FORCE}={forced}, but" if forced else "there is nothing to test against:"
    raise NoWay(f"{asked} {'; '.join(passed_over) or 'there is no such way'}")


@contextmanager
def running(choice: Choice) -> Iterator[Provider]:
    """Run both servers; afterwards nothing of them is left."""
    folder = Path(tempfile.mkdtemp(prefix="levelsync-tests-"))
    try:
        with ExitStack() as stack:
            kafka, postgres = choice.way.start(folder, stack)
            yield Provider(choice, kafka, postgres, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
