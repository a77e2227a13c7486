"""The settings of Kafka Connect and of Debezium's sink."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import make_url

from bench.systems.debezium_records import SCHEMA
from service.local.process import free_port
from service.settings import Settings

BEST = {
    "batch.size": "5000",
    "use.reduction.buffer": "true",
    "dialect.postgres.unnest.insert.enabled": "true",
    "consumer.override.max.poll.records": "5000",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "true",
    "value.converter.schema.content": json.dumps(SCHEMA, separators=(",", ":")),
}
"""The settings that Debezium's documentation offers for speed."""


def worker(bootstrap_servers: str, folder: Path) -> dict[str, object]:
    """Return the settings of the worker: one process, JSON, and otherwise the defaults."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "offset.storage.file.filename": folder / "offsets",
        "plugin.path": folder / "plugins",
        "listeners": f"http://127.0.0.1:{free_port()}",
        "connector.client.config.override.policy": "All",
    }


def connector(name: str, topic: str, settings: Settings) -> dict[str, str]:
    """Return the settings of the sink: an upsert by the pair. A new group reads the topic from its beginning."""
    url = make_url(settings.database_url.get_secret_value())
    return {
        "name": name,
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "1",
        "topics": topic,
        "connection.url": f"jdbc:postgresql://{url.host}:{url.port}/{url.database}",
        "connection.username": str(url.username),
        "connection.password": str(url.password),
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "user_id,specialization_type",
        "collection.name.format": "public.user_licenses",
        "schema.evolution": "none",
    }
