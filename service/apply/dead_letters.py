"""Keeping records that can never apply, whole (law 4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import sql
from service.apply.outcomes import DeadLetter
from service.database.faults import Kind, read_fault
from service.kafka.records import NAME_ERRORS

Records = Sequence[ConsumerRecord]


async def keep(conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter]) -> None:
    """Write the letters of one batch. Where that fails, the batch fails with it: a letter is never dropped."""
    if not letters:
        return
    try:
        async with conn.begin_nested():
            await conn.execute(sql.ADD_DEAD_LETTERS, _values(records, letters, "utf-8"))
    except DBAPIError as error:
        if read_fault(error).kind is not Kind.RECORD:
            raise
        # The database's own encoding is not UTF-8 and lacks a character.
        await conn.execute(sql.ADD_DEAD_LETTERS, _values(records, letters, "ascii"))


def _values(records: Records, letters: Sequence[DeadLetter], encoding: str) -> dict[str, list[Any]]:
    whole = [records[letter.index] for letter in letters]
    return {
        "topics": [record.topic for record in whole],
        "partitions": [record.partition for record in whole],
        "offsets": [record.offset for record in whole],
        "timestamps": [record.timestamp for record in whole],
        "keys": [record.key for record in whole],
        "values": [record.value for record in whole],
        "headers": [json.dumps([header_as_json(k, v, encoding) for k, v in record.headers]) for record in whole],
        "reasons": [letter.reason.value for letter in letters],
        "details": [_storable(letter.detail, encoding) for letter in letters],
    }


async def is_kept(conn: AsyncConnection, record: ConsumerRecord) -> bool:
    """Whether the record is a dead letter already, open or not: it is read again (law 3)."""
    values = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    values |= {"timestamp": record.timestamp, "value": record.value}
    return bool((await conn.execute(sql.FIND_DEAD_LETTER, values)).scalar_one())


def header_as_json(name: str, value: bytes | None, encoding: str = "utf-8") -> dict[str, Any]:
    """One header: ``key`` and ``value`` as text, or ``key_base64`` and ``base64`` where `encoding` has no such text."""
    raw = name.encode(errors=NAME_ERRORS)
    key = {"key": name} if _is_text(raw, encoding) else {"key_base64": base64.b64encode(raw).decode()}
    return key | _value_as_json(value, encoding)


def _value_as_json(value: bytes | None, encoding: str) -> dict[str, str | None]:
    if value is None:
        return {"value": None}
    return {"value": value.decode()} if _is_text(value, encoding) else {"base64": base64.b64encode(value).decode()}


def _is_text(raw: bytes, encoding: str) -> bool:
    """Whether PostgreSQL's JSON can hold it: no NUL."""
    try:
        return "\0" not in raw.decode(encoding)
    except UnicodeDecodeError:
        return False


def _storable(detail: str, encoding: str) -> str:
    """Text as PostgreSQL takes it: no NUL, no lone surrogate."""
    return detail.replace("\0", "").encode(encoding, "backslashreplace").decode()
