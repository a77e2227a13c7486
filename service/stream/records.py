"""Read record batches with any header names, and convert headers to JSON.

Kafka's clients in C, and clients that use them, send any bytes as a header's name, and brokers store them. aiokafka
raises an error on a name that is not UTF-8, and its consumer would never get past that record (law 4).
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
"""The error handler that decodes a name that is not UTF-8, and encodes it to the same bytes again."""


_largest = 16_000_000


def max_record_bytes() -> int:
    """Return the maximum size of a record, in bytes."""
    return _largest


def read_any_records(largest: int) -> None:
    """Patch aiokafka so that every consumer of this process can read any record.

    aiokafka's compiled code still reads the batches that it can read. Values of records above `largest` bytes are cut,
    and at most `largest` bytes are decompressed at once.

    Raises:
        RuntimeError: The installed aiokafka reads records in another way.
    """
    if not (hasattr(fetcher, "MemoryRecords") and hasattr(fetcher, "ConsumerRecord")):
        raise RuntimeError("the installed aiokafka reads records in another way: see service/stream/records.py")
    global _largest  # noqa: PLW0603 - aiokafka creates the readers without our arguments
    _largest = largest
    bound_decompression(largest)
    fetcher.MemoryRecords = _Records
    fetcher.ConsumerRecord = Record


@dataclass(slots=True)
class Record:
    """A record like aiokafka's ConsumerRecord, whose frozen fields take longer to set than a record takes to read."""

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


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka ships no types, and has no public class for it
    """The batches of one fetch response."""

    on_batch: Callable[[memoryview], None] | None = None
    """A function that is called with every batch before it is read."""

    def next_batch(self) -> Any:
        raw, batch = self._next_slice, super().next_batch()
        if self.on_batch is not None and raw is not None:
            self.on_batch(raw)
        return _Batch(batch, raw) if hasattr(batch, "is_control_batch") and not batch.is_control_batch else batch


class _Batch:
    """A batch of records. Our slower reader is used where aiokafka cannot read a header name or the batch is large."""

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
            yield from self._streamed()  # starts at the first record; the fetcher skips those that it already has
        except TooLargeAtOnce:
            yield from self._streamed()

    def _streamed(self) -> Iterator[Any]:
        batch = _AnyNameReader(self._raw)
        return read_records(batch, batch.payload, batch.number, _largest)


class _AnyNameReader(_DefaultRecordBatchPy):  # type: ignore[misc]  # as above
    """aiokafka's reader in Python, with a buffer that decodes any name."""

    @property
    def payload(self) -> bytes:
        """The bytes of the records as they were sent, compressed or not."""
        return bytes(memoryview(self._buffer)[self._pos :])

    @property
    def number(self) -> int:
        """The number of records in the batch."""
        return int(self._num_records)

    def reader(self, body: bytes) -> _AnyNameReader:
        """Return a reader of one record of this batch."""
        reader: _AnyNameReader = copy(self)
        reader._buffer, reader._pos = _Buffer(encode_length(len(body)) + body), 0
        return reader


def encode_length(length: int) -> bytes:
    """Return a length as it is encoded before a record."""
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
"""A stored header: an object that `header_as_json` returned, or name and text as the outbox stores our events."""


def header_as_json(name: str, value: bytes | None, encoding: str = "utf-8") -> dict[str, Any]:
    """Return a header with ``key`` and ``value`` as text, or ``key_base64`` and ``base64`` if they are not text."""
    raw = name.encode(errors=NAME_ERRORS)
    key = {"key": name} if _is_text(raw, encoding) else {"key_base64": base64.b64encode(raw).decode()}
    return key | _value_as_json(value, encoding)


def header_from_json(stored: Stored) -> Header:
    """Return the header that was stored, with the same bytes."""
    if isinstance(stored, list):  # checked first, because all of our own events are stored like this
        name, value = stored
        return name, value.encode()
    return _name(stored), _value(stored)


def can_be_sent(header: Header) -> bool:
    """Return whether a producer can write the header. aiokafka and Kafka's protocol allow only names in UTF-8."""
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
    """Return whether bytes are text that PostgreSQL's JSON can contain, which means without NUL."""
    try:
        return "\0" not in raw.decode(encoding)
    except UnicodeDecodeError:
        return False
