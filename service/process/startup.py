"""Wait for what the roles need: PostgreSQL, the migrations, the columns' defaults, Kafka and its topics.

The wait has no limit and logs its reason every ten seconds. Only wrong settings end it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.checks.installation import filtered_sentence, filtered_tables
from service.faults import InstallationFault, read_fault
from service.levels import read_curriculum
from service.settings import PREFIX, Settings, SettingsError
from service.store.application import configuration_faults, missing_parts
from service.store.functions import CREATED_FOR_OTHER_TABLES, changes_since_v1
from service.store.schema import RELEASE, SchemaState, schema_state_of
from service.store.url import database_url
from service.stream.connection import describe_cluster
from service.stream.diagnosis import diagnose
from service.stream.topics import COMPACTED, TopicsError, compacted_topics, ensure_topics
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
LOG_EVERY = 10.0
TRY_EVERY = 1.0


class NotYet(Exception):  # noqa: N818 - a state, not an error
    """Something that the roles need is missing. The text names it, and what to do about it."""


async def wait_until_ready(engine: AsyncEngine, settings: Settings, health: Health) -> str:
    """Wait for everything that a role needs; return the Kafka cluster's id.

    Raises:
        SettingsError: a column of the application needs a default that the settings do not give.
    """
    await _wait_for("postgresql", lambda: _database(engine, settings), health)
    cluster_id = await _wait_for("kafka", lambda: _kafka(settings), health)
    return cluster_id or ""


async def _wait_for(component: str, check: Callable[[], Awaitable[str]], health: Health) -> str:
    logged_at = 0.0
    while True:
        try:
            answer = await check()
        except NotYet as reason:
            health.report(component, health, str(reason))
            if time.monotonic() - logged_at >= LOG_EVERY:
                logged_at = time.monotonic()
                log.warning("waiting", component=component, reason=str(reason))
            await asyncio.sleep(TRY_EVERY)  # no backoff, so that the start follows soon after a repair
        else:
            health.clear(component, health)
            return answer


async def _database(engine: AsyncEngine, settings: Settings) -> str:
    url = database_url(settings)
    try:
        async with engine.connect() as conn:
            state, refusal = await _refusal(conn)
            sentences = [] if refusal else await configuration_faults(conn, settings)
            unusable = [] if refusal or sentences else await _unusable(conn)
    except SettingsError:
        raise
    except Exception as error:
        raise NotYet(f"PostgreSQL at {url.address}: {read_fault(error).message}") from error
    if refusal:
        raise NotYet(refusal)
    if sentences:
        raise SettingsError("\n".join(sentences))
    for reason in unusable:
        log.error("events wait until somebody repairs the installation", reason=reason)
    metrics.set_build_info(RELEASE, state.revision or "")
    return ""


async def _refusal(conn: AsyncConnection) -> tuple[SchemaState, str]:
    """Return the state of the schema and the reason why the service cannot work with it; '' where it can."""
    filtered = await filtered_tables(conn)
    if filtered:
        return SchemaState(None), filtered_sentence(filtered)
    state = await schema_state_of(conn)
    if state.refusal:
        return state, state.refusal
    missing = await conn.run_sync(missing_parts)
    if missing:
        return state, f"This database lacks the {'; the '.join(missing)}"
    changed = await conn.run_sync(changes_since_v1)
    return state, f"{CREATED_FOR_OTHER_TABLES}: {'; '.join(changed)}. Run: levelsync migrate" if changed else ""


async def _unusable(conn: AsyncConnection) -> list[str]:
    """Return the faults of specializations that cannot be used. The service starts, because the others can."""
    try:
        return list((await read_curriculum(conn)).faults.values())
    except InstallationFault as fault:
        return [str(fault)]


async def _kafka(settings: Settings) -> str:
    try:
        missing = await ensure_topics(settings)
        cluster = await describe_cluster(settings)
    except (KafkaError, TopicsError, OSError) as error:
        found = await diagnose(settings)
        raise NotYet(f"Kafka at {found or f'{settings.kafka_bootstrap_servers}: {error}'}") from error
    if missing:
        hint = f"create them, or set {PREFIX}KAFKA_CREATE_TOPICS=true"
        raise NotYet(f"Kafka lacks the topics {', '.join(missing)}: {hint}")
    if compacted := await _compacted(settings):
        raise NotYet(f"Kafka compacts the topics {', '.join(compacted)}: {COMPACTED}")
    return cluster.id


async def _compacted(settings: Settings) -> list[str]:
    """Return the topics that are compacted; an empty list where the broker does not answer or allow the question."""
    try:
        compacted, unread = await compacted_topics(settings)
    except (KafkaError, OSError) as error:
        log.info("cannot read whether topics are compacted", error=f"{type(error).__name__}: {error}")
        return []
    if unread:
        log.info("cannot read whether topics are compacted", topics=unread)
    return compacted
