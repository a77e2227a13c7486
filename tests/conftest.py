"""Fixtures of the whole suite (docs/testing.md). `tests/support` contains what they use."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiokafka.protocol.admin import DeleteAclsRequest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import PREFIX, Settings
from service.store.engine import make_engine
from tests.support import apache_kafka, preloaded, servers
from tests.support import topics as of_kafka
from tests.support.apache_kafka import GuardedKafka
from tests.support.process import ForkedProcess, LevelsyncProcess, Make
from tests.support.provider import FORCE, Choice, NoWay, Provider, choose, new_postgres, running
from tests.support.roles import ACLS, EVERY_ACL, THROUGH, Way, change_acl, guarded_access, way_through
from tests.support.runs import OneWorker
from tests.support.servers import Kafka, Postgres
from tests.support.tokens import SECRET
from tests.support.topics import Publish

_CHOICE = pytest.StashKey[Choice]()
_LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the servers before tests are collected."""
    try:
        choice = config.stash[_CHOICE] = choose(os.environ)
    except NoWay as reason:
        raise pytest.UsageError(str(reason)) from reason
    # A cached logger would keep the processors of an earlier test, and `capture_logs` would miss its lines.
    structlog.configure = partial(_configure_uncached, structlog.configure)
    os.environ[FORCE] = str(choice.way.number)  # xdist's workers need not choose again
    if config.getoption("numprocesses", None):
        os.environ[preloaded.SHARED] = preloaded.address()  # and they share the process that forks commands
    for name in [n for n in os.environ if n.startswith(PREFIX) and not n.startswith(f"{PREFIX}TEST_")]:
        del os.environ[name]  # a developer's own settings must not change a test


def _configure_uncached(configure: Callable[..., None], **options: Any) -> None:
    configure(**options | {"cache_logger_on_first_use": False})


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print the choice at the start."""
    choice = config.stash[_CHOICE]
    return [str(choice), *(f"  not {reason}" for reason in choice.passed_over)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need Apache Kafka if the broker is another one."""
    if config.stash[_CHOICE].way.real_broker:
        return
    left_out = [item for item in items if item.get_closest_marker("real_broker")]
    config.stash[_LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the choice at the end, and how many tests it left out."""
    terminalreporter.section("levelsync")
    terminalreporter.write_line(str(config.stash[_CHOICE]))
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"tests left out because they need Apache Kafka: {left_out}")


def pytest_collection_finish() -> None:
    """Leave the imported modules out of all garbage collections of this process."""
    gc.freeze()


@pytest.fixture(scope="session")
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """Kafka and PostgreSQL, started once for the session."""
    with running(request.config.stash[_CHOICE]) as started:
        yield started


@pytest.fixture(scope="session")
def kafka(provider: Provider) -> Kafka:
    """The broker: `bootstrap_servers`, `real`, `can_restart`, `stop`, `start`, `fresh_topics`."""
    return provider.kafka


@pytest.fixture(scope="session")
def postgres(provider: Provider) -> Postgres:
    """The PostgreSQL server: `url`, `can_restart`, `stop`, `start`."""
    return provider.postgres


@pytest.fixture
async def topics(kafka: Kafka) -> list[str]:
    """Every topic of the contract, empty, with four partitions; returns their names."""
    return await kafka.fresh_topics(keep_empty=True)


@pytest.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """A PostgreSQL server of the test's own, which it may kill or stop without an effect on other tests."""
    folder = tempfile.mkdtemp(prefix="levelsync-postgres-")  # not pytest's, which is closed to other accounts
    server = new_postgres(Path(folder) / "postgres")
    async with server:
        yield Postgres(server.url, server=server)
    shutil.rmtree(folder)


@pytest.fixture
async def empty_database_url(postgres: Postgres) -> AsyncIterator[str]:
    """A new database without a table."""
    url = await postgres.create_database()
    yield url
    await postgres.drop_database(url)


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> Iterator[str]:
    """The name of a migrated database with 200 sample users, to which no connection is open."""
    with ThreadPoolExecutor(1) as pool:  # another thread, because pytest-asyncio uses the loop of this one
        name = pool.submit(lambda: asyncio.run(servers.make_template(postgres))).result()
        yield name
        pool.submit(lambda: asyncio.run(postgres.drop_database(postgres.url_of(name)))).result()


@pytest.fixture
async def database_url(postgres: Postgres, template_database: str) -> AsyncIterator[str]:
    """A migrated database of the test's own, with 200 sample users (ids 1 to 200)."""
    url = await postgres.create_database(template_database)
    yield url
    await postgres.drop_database(url)


@pytest.fixture(scope="session")
def other_way(postgres: Postgres) -> Iterator[Way]:
    """The service's way to the database: as a superuser, unless LEVELSYNC_TEST_THROUGH names another way."""
    with way_through(os.environ.get(THROUGH, ""), postgres.url) as way:
        yield way


@pytest.fixture(scope="session")
def kafka_access(kafka: Kafka) -> Iterator[dict[str, Any]]:
    """Settings of the service's access to Kafka: none, unless LEVELSYNC_TEST_THROUGH requires a login."""
    if os.environ.get(THROUGH) != ACLS:
        yield {}
        return
    assert isinstance(kafka._server, GuardedKafka)
    with guarded_access(kafka._server) as access:
        yield access


@pytest.fixture(scope="session")
def broker_with_acls(kafka: Kafka) -> Iterator[GuardedKafka]:
    """The session's broker if it has ACLs, else another one."""
    if isinstance(kafka._server, GuardedKafka):
        yield kafka._server
        return
    if reason := apache_kafka.unavailable():
        pytest.skip(f"needs Apache Kafka from its Maven jars: {reason}")
    with tempfile.TemporaryDirectory() as folder, GuardedKafka(Path(folder) / "kafka") as server:
        yield server


@pytest.fixture
async def guarded_kafka(broker_with_acls: GuardedKafka, kafka: Kafka) -> GuardedKafka:
    """A broker with ACLs and empty topics. Its user may do nothing yet."""
    await kafka.start()  # the test before may have left it stopped
    await of_kafka.fresh_topics(broker_with_acls.bootstrap_servers, 4, remove_groups=True, keep_empty=True)
    await change_acl(broker_with_acls, DeleteAclsRequest, EVERY_ACL)
    return broker_with_acls


@pytest.fixture
async def service_url(database_url: str, other_way: Way) -> str:
    """The URL of the test's database for the service."""
    return await other_way(database_url)


@pytest.fixture
def settings(service_url: str, kafka: Kafka, kafka_access: dict[str, Any]) -> Settings:
    """Settings for the test's database and the session's broker, with the test's own consumer group."""
    return servers.settings_for(service_url, kafka, jwt_secret=SECRET, **kafka_access)


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine as the service creates it, on the test's database."""
    made = make_engine(settings)
    yield made
    await made.dispose()


@pytest.fixture
def at_once(settings: Settings) -> Settings:
    """The settings without a grace time of reconciles."""
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


@pytest.fixture
def one_worker(engine: AsyncEngine, at_once: Settings) -> OneWorker:
    """A reconcile worker of this process, without a grace time."""
    return OneWorker(engine, at_once)


@pytest.fixture
def publish(kafka: Kafka) -> Publish:
    """Send `Record`s, or tuples of their fields, with a producer's options; returns the offsets."""
    return partial(of_kafka.publish, kafka.bootstrap_servers)


@pytest.fixture
def levelsync_process(settings: Settings, tmp_path: Path) -> Iterator[Make]:
    """Create a process that is not started: `levelsync_process(settings=…, arguments=("serve",))`.

    It ends with the test, which shows its output on failure. With `fresh=True` it does not start in a fork, for
    measurements of memory and start-up time.
    """
    made: list[LevelsyncProcess] = []

    def make(
        settings: Settings = settings, arguments: Sequence[str] = ("serve",), *, fresh: bool = False
    ) -> LevelsyncProcess:
        folder = tmp_path / f"levelsync-{len(made)}"
        folder.mkdir()
        made.append((LevelsyncProcess if fresh else ForkedProcess)(settings, folder, arguments))
        return made[-1]

    yield make
    for number, process in enumerate(made):
        process.stop()
        print(f"--- levelsync {number}:\n{process.output}")  # noqa: T201 - pytest shows it for a test that failed
