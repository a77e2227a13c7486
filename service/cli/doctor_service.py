"""`levelsync doctor`: do the appliers keep up, and what does a running service say of itself."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from aiokafka.errors import KafkaError
from sqlalchemy.exc import SQLAlchemyError

from service.cli import doctor_database, doctor_kafka, reach
from service.cli.findings import Finding, Verdict, failed, passed, skipped
from service.database.positions import applied_positions
from service.kafka.lag import EVENT_TOPICS, EndOffsets, lag
from service.settings import Settings

_NEEDED = (doctor_database.MIGRATED, doctor_kafka.TOPICS_THERE)
_LAG = "Lag"
_SERVICE = "Running service"
_STANDS_STILL_SECONDS = 5.0
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
        async with asyncio.timeout(_STANDS_STILL_SECONDS):
            while any(last[topic] and last[topic] >= first[topic] for topic in last):
                await asyncio.sleep(_LOOK_EVERY)
                last = await _lag_by_topic(settings)
    except TimeoutError:
        pass  # the last look says which topic stands still
    except (KafkaError, SQLAlchemyError, OSError) as error:
        return [failed(_LAG, f"cannot be read: {error}")]
    return [_lag_finding(topic, first[topic], last[topic]) for topic in EVENT_TOPICS]


def _lag_finding(topic: str, first: int, last: int) -> Finding:
    name = f"{_LAG} of {topic}"
    if not last:
        return passed(name, "every record is applied")
    if last < first:
        return passed(name, f"{last} records to apply, and falling")
    advice = "Is `levelsync serve` running with the role apply? Its /readyz says what it waits for"
    return failed(name, f"{last} records to apply, and none was applied in {_STANDS_STILL_SECONDS:.0f} s", advice)


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
    """A service that listens on every address is asked on this machine."""
    known = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound
    return known.get(host, f"[{host}]" if ":" in host else host)


def _problems(answer: urllib.error.HTTPError) -> str:
    """Give the problems that /readyz names, each with its component."""
    try:
        named: dict[str, Any] = json.loads(answer.read())["problems"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.code}"
    return "; ".join(f"{component}: {problem}" for component, problems in named.items() for problem in problems)
