"""The checks of `levelsync doctor`."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from typing import Any

from aiokafka.errors import KafkaError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from events import TOPICS
from service.checks import (
    BEFORE_MIGRATION,
    CURRICULUM,
    EDGE_CASES,
    INSTALLATION,
    WARNINGS,
    application_columns,
    rights,
    row_security,
)
from service.checks.result import Finding, Verdict, failed, passed, skipped, unreachable
from service.cli import reach
from service.cli.context import unknown_sentence
from service.cli.exits import Unreachable
from service.settings import Settings, SettingsError, unknown_names
from service.store.application import PROGRESS
from service.store.catalog import table_exists
from service.store.tables import applied_positions
from service.stream.connection import Cluster, describe_cluster
from service.stream.lag import EVENT_TOPICS, EndOffsets, lag
from service.stream.topics import COMPACTED, compacted_topics, missing_rights, missing_topics

POSTGRES_REACHABLE = "PostgreSQL reachable"
MIGRATED = "Migrations"
"""The name of the first check in `INSTALLATION`."""
_DATA = "Application's data"
_VERSION = text("SHOW server_version")


def settings_findings() -> list[Finding]:
    """Check the names of the settings. Their values were checked when they were read."""
    unknown = unknown_names()
    if not unknown:
        return [passed("Settings", "every LEVELSYNC_ name is known, and every value can be used")]
    return [
        failed("Settings", unknown_sentence(name, nearest), "rename or remove the variable")
        for name, nearest in unknown.items()
    ]


async def database_findings(settings: Settings) -> list[Finding]:
    """Check that PostgreSQL answers, then the installation and the application's data in it."""
    try:
        async with reach.database(settings) as conn:
            version = await conn.scalar(_VERSION)
            found = passed(POSTGRES_REACHABLE, f"{reach.database_address(settings)}, version {version}")
            return [found, await row_security(conn), *await _schema_findings(conn, settings)]
    except SettingsError as refused:
        unusable = "this connection cannot be used"
        return [failed(POSTGRES_REACHABLE, str(refused)), skipped(MIGRATED, unusable), skipped(_DATA, unusable)]
    except Unreachable as trouble:
        silent = "PostgreSQL does not answer"
        return [unreachable(POSTGRES_REACHABLE, str(trouble)), skipped(MIGRATED, silent), skipped(_DATA, silent)]


async def _schema_findings(conn: AsyncConnection, settings: Settings) -> list[Finding]:
    migrated, *installed = INSTALLATION
    head = await migrated(conn)
    if head.verdict is not Verdict.PASS:
        return [head, *await _before_migration(conn)]
    checks = [await check(conn) for check in (rights, *installed, *CURRICULUM, *EDGE_CASES, *WARNINGS)]
    return [head, await application_columns(conn, settings), *checks]


async def _before_migration(conn: AsyncConnection) -> list[Finding]:
    """Check what could stop the migrations. A database without the application's tables has nothing to check."""
    rest = skipped(_DATA, "needs the migrations")
    if not await conn.run_sync(table_exists, PROGRESS):
        return [rest]
    return [*[await check(conn) for check in BEFORE_MIGRATION], rest]


KAFKA_REACHABLE = "Kafka reachable"
TOPICS_THERE = "Topics"
RIGHTS = "Rights in Kafka"
POLICY = "Topics keep every event"


async def kafka_findings(settings: Settings) -> list[Finding]:
    """Check that Kafka answers, that each topic exists and is not compacted, and that the Kafka user has its rights."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the finding is enough
    try:
        cluster = await describe_cluster(settings)
    except (KafkaError, OSError) as error:
        sentence = str(await reach.kafka_trouble(settings, error))
        return [unreachable(KAFKA_REACHABLE, sentence), skipped(TOPICS_THERE, "Kafka does not answer")]
    brokers = f"{cluster.brokers} broker{'s' if cluster.brokers != 1 else ''}"
    found = f"{settings.kafka_bootstrap_servers}, cluster {cluster.id}, {brokers}"
    return [passed(KAFKA_REACHABLE, found), _topics(cluster), await _policy(settings, cluster), await _rights(settings)]


async def _rights(settings: Settings) -> Finding:
    try:
        missing = await missing_rights(settings)
    except (KafkaError, OSError) as error:
        return failed(RIGHTS, f"cannot be read: {error}")
    if missing is None:
        return passed(RIGHTS, "this broker has no rights to check")
    if missing:
        return failed(RIGHTS, f"the Kafka user has no {', '.join(missing)}", "Grant them: deploy/kafka/acls.sh")
    return passed(RIGHTS, "the Kafka user has every right that levelsync needs")


async def _policy(settings: Settings, cluster: Cluster) -> Finding:
    if missing_topics(cluster):
        return skipped(POLICY, "topics are missing")
    try:
        compacted, unread = await compacted_topics(settings)
    except (KafkaError, OSError) as error:
        return skipped(POLICY, f"not checked: {type(error).__name__}")
    if compacted:
        return failed(POLICY, f"compacted: {', '.join(compacted)}", COMPACTED)
    if unread:
        return skipped(POLICY, f"not checked, without the right DescribeConfigs: {', '.join(unread)}")
    return passed(POLICY, "no topic is compacted")


def _topics(cluster: Cluster) -> Finding:
    if missing := missing_topics(cluster):
        advice = "`levelsync serve` creates them, with LEVELSYNC_KAFKA_CREATE_TOPICS=true"
        return failed(TOPICS_THERE, f"missing: {', '.join(missing)}", advice)
    counts = ", ".join(f"{topic} ({cluster.partitions[topic]})" for topic in TOPICS)
    return passed(TOPICS_THERE, f"all exist, with their partitions: {counts}")


_NEEDED = (MIGRATED, TOPICS_THERE)
_LAG = "Lag"
_SERVICE = "Running service"
_STALLED_SECONDS = 5.0
_LOOK_EVERY = 0.25
_HTTP_TIMEOUT = 5.0


async def service_findings(settings: Settings, before: list[Finding]) -> list[Finding]:
    """Check the lag of each topic, and ask the service at HTTP_HOST and HTTP_PORT."""
    well = {finding.check for finding in before if finding.verdict is Verdict.PASS}
    if not well.issuperset(_NEEDED):
        lags = [skipped(_LAG, "needs Kafka with the topics, and a migrated PostgreSQL")]
    else:
        lags = await _lag_findings(settings)
    return [*lags, await asyncio.to_thread(_ask_service, settings)]


async def _lag_findings(settings: Settings) -> list[Finding]:
    try:
        first = last = await _lag_by_topic(settings)
        async with asyncio.timeout(_STALLED_SECONDS):
            while any(last[topic] and last[topic] >= first[topic] for topic in last):
                await asyncio.sleep(_LOOK_EVERY)
                last = await _lag_by_topic(settings)
    except TimeoutError:
        pass  # the last lag shows which topic is stalled
    except (KafkaError, SQLAlchemyError, OSError) as error:
        return [failed(_LAG, f"cannot be read: {error}")]
    return [_lag_finding(topic, first[topic], last[topic]) for topic in EVENT_TOPICS]


def _lag_finding(topic: str, first: int, last: int) -> Finding:
    name = f"{_LAG} of {topic}"
    if not last:
        return passed(name, "every record is applied")
    if last < first:
        return passed(name, f"{last} records are not applied yet, and the number falls")
    advice = "Is `levelsync serve` running with the role apply? Its /readyz shows what it waits for"
    detail = f"{last} records are not applied yet, and none was applied in {_STALLED_SECONDS:.0f} s"
    return failed(name, detail, advice)


async def _lag_by_topic(settings: Settings) -> dict[str, int]:
    async with EndOffsets(settings) as kafka, reach.database(settings) as conn:
        cluster = await kafka.read_cluster()
        applied = await applied_positions(conn, cluster.id, await kafka.read_topic_ids(cluster))
        behind = lag(await kafka.read_of(cluster), applied)
    return {
        topic: sum(records for partition, records in behind.items() if partition.topic == topic)
        for topic in EVENT_TOPICS
    }


def _ask_service(settings: Settings) -> Finding:
    url = f"http://{_reachable_host(settings.http_host)}:{settings.http_port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return failed(_SERVICE, f"{url} is not ready: {_problems(error)}")
    except (OSError, ValueError):
        return skipped(_SERVICE, f"nothing answers at {url}")
    return passed(_SERVICE, f"{url} is ready")


def _reachable_host(host: str) -> str:
    """Return the address of a service on this machine, also where it listens on every address."""
    known = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound
    return known.get(host, f"[{host}]" if ":" in host else host)


def _problems(answer: urllib.error.HTTPError) -> str:
    """Return the problems that /readyz names, each with its component."""
    try:
        named: dict[str, Any] = json.loads(answer.read())["problems"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.code}"
    return "; ".join(f"{component}: {problem}" for component, problems in named.items() for problem in problems)
