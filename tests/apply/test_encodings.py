"""Databases with another encoding than UTF-8."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.engine import make_engine
from service.store.migrate import migrate
from tests.support.applier import fresh, one
from tests.support.model import LEVELED_UP
from tests.support.servers import Postgres
from tests.support.tables import read

HEADERS = (("größe", "groß".encode()), ("名", "名".encode()), ("raw", b"\xff"), ("plain", b"x"))
KEPT = [
    {"key_base64": "Z3LDtsOfZQ==", "base64": "Z3Jvw58="},
    {"key_base64": "5ZCN", "base64": "5ZCN"},
    {"key": "raw", "base64": "/w=="},
    {"key": "plain", "value": "x"},
]


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
async def foreign(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[AsyncEngine]:
    name = f"levelsync_{uuid.uuid4().hex}"
    options = f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    await postgres.execute(f'CREATE DATABASE "{name}" {options}')
    settings = Settings(_env_file=None, database_url=postgres.url_of(name))
    await asyncio.to_thread(migrate, settings)
    engine = make_engine(settings)
    yield engine
    await engine.dispose()
    await postgres.drop_database(postgres.url_of(name))


async def test_a_dead_letter_of_any_text_is_kept_and_blocks_nobody(foreign: AsyncEngine) -> None:
    """Law 4: text that the database cannot encode is stored as bytes."""
    partitions = await fresh(foreign)
    records = partitions.records([one(specialization="魔法"), one(bad="malformed")])
    odd = [replace(record, headers=(*record.headers, *HEADERS)) for record in records]
    applied = await partitions.apply(LEVELED_UP, odd)
    assert [letter.reason for letter in applied.letters] == ["unknown_specialization", "malformed"]
    found = await read(foreign, "SELECT value, headers, detail FROM levelsync.dead_letters ORDER BY id")
    assert [row.value for row in found] == [record.value for record in records]
    assert all(row.headers[-4:] == KEPT for row in found)
    assert found[0].detail == r"there is no specialization '\u9b54\u6cd5'"
