"""How a batch stores and reports its dead letters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from events import Reason
from service.apply.batch import Applied
from service.apply.role import report_batch
from service.core.outcomes import DeadLetter
from service.settings import Settings
from service.store.engine import make_engine
from service.store.migrate import migrate
from service.stream.positions import Batch
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
    """A database with another encoding than UTF-8."""
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


def test_a_batch_of_a_thousand_dead_letters_is_one_warning() -> None:
    topic = "progress.leveled-up"
    records = [ConsumerRecord(topic, 2, offset, 0, 0, None, b"", None, 0, 0, ()) for offset in range(1000)]
    letters = [DeadLetter(index, Reason.MALFORMED, f"no JSON {index}") for index in range(1000)]
    with capture_logs() as lines:
        report_batch(Batch(records, {}, {}), Applied(letters, {}, letters), 0.1)
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert (warning["event"], warning["topic"], warning["count"]) == ("dead letters", topic, 1000)
    assert warning["first"] == [
        {"partition": 2, "offset": number, "reason": "malformed", "detail": f"no JSON {number}"} for number in range(3)
    ]
