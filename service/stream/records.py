"""Read record batches, and their headers as text.

aiokafka raises on such a name, and would stand still there for ever.
Kafka's clients in C and what is built on them send any bytes as a header's name, and brokers keep them (law 4).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import encode_varint

from service.stream.decompress import TooLargeAtOnce, bound_decompression, read_records

NAME_ERRORS = "surrogateescape"
"""How a name that is not UTF-8 becomes text, and back to the same bytes."""


_largest = 16_000_000


def largest() -> int:
    """Return how many bytes a record may hold."""
    return _largest


def read_any_records(largest: int) -> None:
    """Let every consumer of this process read any records, by aiokafka's compiled code where that can.

    Records above `largest` bytes are cut, and no more than that is decompressed at once.

    Raises:
        RuntimeError: this aiokafka reads records differently.
    """
    if not (hasattr(fetcher, "MemoryRecords") and hasattr(fetcher, "ConsumerRecord")):
        raise RuntimeError("this aiokafka reads records differently: see service/stream/records.py")
    global _largest  # noqa: PLW0603 - aiokafka makes the readers, and passes them nothing
    _largest = largest
    bound_decompression(largest)
    fetcher.MemoryRecords = _Records
    fetcher.ConsumerRecord = Record


@dataclass(slots=True)
class Record:
    """As aiokafka's ConsumerRecord, whose frozen fields take longer to set than the record takes to read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    headers: tuple[tuple[str, bytes | None], ...]


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka ships no types, and has no other place for it
    """The batches of one answer to a fetch."""

    note: Callable[[memoryview], None] | None = None
    """Called with every batch before it is read."""

    def next_batch(self) -> Any:
        raw, batch = self._next_slice, super().next_batch()
        if self.note is not None and raw is not None:
            self.note(raw)
        return _Batch(batch, raw) if hasattr(batch, "is_control_batch") and not batch.is_control_batch else batch


class _Batch:
    """A batch of records as aiokafka reads it, or slowly where it holds a name that is not UTF-8."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except (UnicodeDecodeError, CorruptRecordException) as error:
            if not isinstance(error.__cause__ or error, UnicodeDecodeError):
                raise
            yield from self._streamed()  # from its first record on: the fetcher skips those that it has already
        except TooLargeAtOnce:
            yield from self._streamed()

    def _streamed(self) -> Iterator[Any]:
        batch = _AnyName(self._raw)
        return read_records(batch, batch.payload, batch.number, _largest)


class _AnyName(_DefaultRecordBatchPy):  # type: ignore[misc]  # as above
    """aiokafka's reader in Python, on a buffer that decodes every name."""

    @property
    def payload(self) -> bytes:
        """The records as they were sent, compressed or not."""
        return bytes(memoryview(self._buffer)[self._pos :])

    @property
    def number(self) -> int:
        """How many records the batch holds."""
        return int(self._num_records)

    def reader(self, body: bytes) -> _AnyName:
        """Return a reader of one record of this batch."""
        reader: _AnyName = copy(self)
        reader._buffer, reader._pos = _Buffer(encode_length(len(body)) + body), 0
        return reader


def encode_length(length: int) -> bytes:
    """Return a length as records have it in front."""
    encoded = bytearray()
    encode_varint(length, encoded.append)
    return bytes(encoded)


class _Buffer(bytearray):
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Buffer(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = NAME_ERRORS) -> str:
        return super().decode(encoding, errors)


Header = tuple[str, bytes | None]
Stored = Mapping[str, Any] | list[str]
"""An object as `header_as_json` makes it; or name and text, as events of our own have them in the outbox."""


def header_as_json(name: str, value: bytes | None, encoding: str = "utf-8") -> dict[str, Any]:
    """One header: ``key`` and ``value`` as text, or ``key_base64`` and ``base64`` where `encoding` has no such text."""
    raw = name.encode(errors=NAME_ERRORS)
    key = {"key": name} if _is_text(raw, encoding) else {"key_base64": base64.b64encode(raw).decode()}
    return key | _value_as_json(value, encoding)


def header_from_json(stored: Stored) -> Header:
    """The header that was stored, byte for byte."""
    if isinstance(stored, list):  # asked first, and of a class that answers fast: every event of our own is so
        name, value = stored
        return name, value.encode()
    return _name(stored), _value(stored)


def can_be_sent(header: Header) -> bool:
    """Whether a producer can write it: aiokafka, like Kafka's protocol, knows only names in UTF-8."""
    return header[0].isascii() or not any("\udc80" <= char <= "\udcff" for char in header[0])


def _name(stored: Mapping[str, Any]) -> str:
    if "key" in stored:
        return str(stored["key"])
    return base64.b64decode(stored["key_base64"]).decode(errors=NAME_ERRORS)


def _value(stored: Mapping[str, Any]) -> bytes | None:
    if "base64" in stored:
        return base64.b64decode(stored["base64"])
    value = stored.get("value")
    return None if value is None else str(value).encode()


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
