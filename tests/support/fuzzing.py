"""Records that no publisher should send, from a seed: random bytes, and valid records with changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiokafka import ConsumerRecord

from tests.support.model import ADVANCED, LEVELED_UP, Meant
from tests.support.records import MAXIMUM, as_record

_NAMES = ("user_id", "specialization", "to_level", "from_level", "id", "type", "data", "specversion", "source", "time")
_ODD: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2, 3, 4, 8, 9, 200, 201, 2**31 - 1, 2**31, 2**63, -(2**70), 10**400),
    *(1.0, 4.5, 1e308, -0.0, "", "42", "PLAYER", "player", "cOaCh", "INTERNSHIP", "WIZARD", "\0", "a\0b", "\ud800"),
    *("'; DROP TABLE users; --", "x" * 51, "ß" * 50, "é" * 5000, [], {}, [[[]]], {"a": {"b": []}}, [1, "2", None]),
)
_TIMES = (b"", b"now", b"2026-11-23", b"1999-12-31T23:59:59Z", b"9999-12-31T23:59:59.999999Z", b"2026-13-01T00:00:00Z",
          b"2026-01-01T00:00:00", b"2026-01-01T00:00:00.123456789+14:00", b"2026-01-01t00:00:00z", b"\xff")  # fmt: skip
_TYPES = (
    *(b"application/json", b"application/json; charset=utf-8", b"text/plain", b"", b"\xff\xfe", None),
    *(b"application/cloudevents+json", b"application/cloudevents+json; charset=UTF-8", b"APPLICATION/CLOUDEVENTS+JSON"),
)
_TOKENS = (
    *(b'"', b"{", b"}", b"[" * 3000, b"NaN", b"\x00", b"\xff"),
    *(b"\xed\xa0\x80", b"1e999", b"\\u0000", b",", b"9" * 500),
)
Change = Callable[[Random, ConsumerRecord], ConsumerRecord]


def fuzz(rng: Random, kind: str, partition: int = 0) -> ConsumerRecord:
    """Return one record for the topic of `kind`: a valid one with up to three changes."""
    record = as_record(_valid(rng, kind), 0, partition)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        record = rng.choice(_CHANGES)(rng, record)
    return record


def _valid(rng: Random, kind: str) -> Meant:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=rng.randint(0, 3600))
    name = rng.choice([*MAXIMUM])
    return Meant(kind, rng.randint(1, 200), name, rng.randint(1, MAXIMUM[name]), at, "/fuzz", f"f{rng.getrandbits(40)}")


def _random_value(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    return replace(record, value=rng.randbytes(rng.choice((0, 1, 10, 100, 2000))))


def _flipped(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    value = bytearray(record.value or b"\0")
    for _ in range(rng.randint(1, 5)):
        if value:
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
    return replace(record, value=bytes(value))


def _spliced(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    value, token = record.value or b"", rng.choice(_TOKENS)
    at, to = sorted((rng.randint(0, len(value)), rng.randint(0, len(value))))
    return replace(record, value=value[:at] + token + value[rng.choice((at, to)) :])


def _tombstone(_rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    return replace(record, value=None)


def _odd_field(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    """Replace, remove or add a field of the JSON object."""
    data = _loaded(record.value)
    if not isinstance(data, dict):
        return replace(record, value=json.dumps(rng.choice(_ODD)).encode())
    name = rng.choice([*data] if data and rng.random() < 0.7 else _NAMES)
    if rng.random() < 0.1:
        data.pop(name, None)
    else:
        data[name] = rng.choice(_ODD)
    return replace(record, value=json.dumps(data).encode())


def _odd_headers(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    headers: list[tuple[str, bytes | None]] = list(record.headers)
    names = [name for name, _ in headers] or ["ce_id"]
    match rng.randrange(7):
        case 0:
            headers.pop(rng.randrange(len(headers))) if headers else None
        case 1:
            headers.append((rng.choice(names), rng.randbytes(rng.randint(0, 20))))
        case 2:
            headers.append((rng.choice(("", "\0", "traceparent", "CE_ID", "ключ", "x" * 2000)), rng.randbytes(8)))
        case 3:
            headers = [(name, None if rng.random() < 0.3 else value) for name, value in headers]
        case 4:
            headers = [
                ("ce_time", rng.choice(_TIMES)) if name == "ce_time" else (name, value) for name, value in headers
            ]
        case 5:
            headers = [(n, rng.choice(_TYPES)) if n == "content-type" else (n, value) for n, value in headers]
        case _:
            changed = rng.choice(names)
            headers = [(n, rng.randbytes(rng.randint(0, 300))) if n == changed else (n, v) for n, v in headers]
    return replace(record, headers=tuple(headers))


def _structured(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    """Put the data into a structured-mode envelope, sometimes with an odd field."""
    data = _loaded(record.value)
    text = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    envelope = {name[3:]: value for name, value in text.items() if name.startswith("ce_")} | {"data": data}
    if rng.random() < 0.5:
        envelope[rng.choice(_NAMES)] = rng.choice(_ODD)
    headers = (("content-type", b"application/cloudevents+json"),)
    return replace(record, value=json.dumps(envelope).encode(), headers=headers)


def _loaded(value: bytes | None) -> Any:
    """Return the value as JSON, or a text where it is not JSON."""
    try:
        return json.loads(value or b"null")
    except (ValueError, RecursionError):
        return "not JSON"


def _odd_key(rng: Random, record: ConsumerRecord) -> ConsumerRecord:
    return replace(record, key=rng.choice((b"", b"\xff\0", b"not-a-user", b"k" * 3000)))


_CHANGES: tuple[Change, ...] = (
    *(_random_value, _flipped, _flipped, _spliced, _spliced, _tombstone, _odd_key, _structured),
    *(_odd_field,) * 4,
    *(_odd_headers,) * 4,
)
KINDS = (LEVELED_UP, ADVANCED)
