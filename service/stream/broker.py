"""FastStream's broker, with subscribers that poll through `LevelConsumer`."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import aiokafka
from faststream.kafka import KafkaBroker

from service.settings import Settings
from service.stream.connection import connection_options, faststream_security
from service.stream.consumer import LevelConsumer, PositionStore
from service.stream.fetcher import fetch_by_id
from service.stream.records import read_any_records

GRACEFUL_TIMEOUT = 8.0
"""Seconds that a stop waits for the current batch. The whole process must end within 10 seconds of SIGTERM."""
METADATA_MAX_AGE_MS = 10_000
"""Milliseconds until new partitions of a topic are found. aiokafka's default is five minutes."""


def make_broker(settings: Settings, store: PositionStore, may_read: asyncio.Event) -> KafkaBroker:
    """Create a broker that is not started yet. Its consumers read nothing before `may_read` is set.

    It only consumes, because the service publishes everything through the outbox.
    """
    read_any_records(int(settings.record_max_bytes))
    fetch_by_id()
    broker = KafkaBroker(
        connection_options(settings)["bootstrap_servers"],
        security=faststream_security(settings),
        client_id="levelsync",
        consumer_only=True,
        allow_auto_create_topics=False,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        graceful_timeout=GRACEFUL_TIMEOUT,
        apply_types=False,
        logger=_quiet_logger(),
        log_level=logging.DEBUG,
    )
    _poll_through_level_consumer(broker, store, settings, may_read)
    return broker


def _quiet_logger() -> logging.Logger:
    """Return FastStream's logger without its own handler, so that it logs only errors and in our format."""
    logger = logging.getLogger("faststream")
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.ERROR)
    return logger


def _poll_through_level_consumer(
    broker: KafkaBroker, store: PositionStore, settings: Settings, may_read: asyncio.Event
) -> None:
    """Replace the `builder` with which FastStream creates consumers. FastStream sets it when it connects."""
    config = broker.config.broker_config
    connect = config.connect

    async def connect_and_replace(**options: object) -> None:
        await connect(**options)
        theirs = config.builder
        if not isinstance(theirs, partial) or theirs.func is not aiokafka.AIOKafkaConsumer:
            raise RuntimeError("this FastStream creates consumers in another way: see service/stream/broker.py")
        max_bytes = int(settings.batch_max_bytes)
        config.builder = partial(LevelConsumer, store=store, max_bytes=max_bytes, may_read=may_read, **theirs.keywords)

    config.connect = connect_and_replace  # type: ignore[method-assign]  # FastStream has no public way to do it
