"""Debezium's JDBC sink on a standalone Kafka Connect: an upsert of the license, with its defaults and at its best.

It writes the level that it read last, not the highest, and no history. It can do neither.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from bench import jars
from bench.load import Encode, Records
from bench.servers import Servers
from bench.systems import debezium_records
from bench.systems.debezium_settings import BEST, connector, worker
from bench.systems.system import System, process
from service.settings import Settings
from tests.support.topics import fill

_JVM = ["-Xms256m", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]  # the heap of Kafka Connect's scripts


def _system(name: str, topic: str, encode: Encode, tuning: Mapping[str, str]) -> System:
    return System(name, partial(_publish, topic, encode), partial(_run_of, topic, tuning), exact=False)


async def _publish(topic: str, encode: Encode, servers: Servers, records: Records) -> None:
    await servers.make_topics(topic)
    await fill(servers.bootstrap_servers, records.encoded(topic, encode))


@asynccontextmanager
async def _run_of(
    topic: str, tuning: Mapping[str, str], servers: Servers, settings: Settings, _records: Records
) -> AsyncIterator[int]:
    name = f"debezium-{uuid.uuid4().hex[:8]}"
    folder = servers.folder / name
    (folder / "plugins").mkdir(parents=True)
    (folder / "plugins" / "debezium").symlink_to(jars.debezium())  # each folder in the plugin path is a plugin
    files = [
        _write(folder / "worker.properties", worker(servers.bootstrap_servers, folder)),
        _write(folder / "connector.properties", {**connector(name, topic, settings), **tuning}),
    ]
    standalone = ["org.apache.kafka.connect.cli.ConnectStandalone", *map(str, files)]
    async with process(["java", *_JVM, "-cp", f"{jars.connect()}/*", *standalone], folder, {}) as pid:
        yield pid


def _write(file: Path, properties: Mapping[str, object]) -> Path:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    return file


DEFAULT = _system("Debezium, default", "bench.debezium-default", debezium_records.with_schema, {})
AT_ITS_BEST = _system("Debezium, best", "bench.debezium-best", debezium_records.plain, BEST)
