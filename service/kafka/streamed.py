"""Reading a batch of records as a stream: memory holds one record, and of one above the bound only its beginning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordPy
from aiokafka.record.util import decode_varint

from service.apply.outcomes import Cut
from service.kafka.decompress import Source, source

KEPT_BYTES = 64 * 1024
"""How much of a value above the bound is kept."""
_PIECE = 64 * 1024
_LONGEST_VARINT = 10


def cut(value: bytes, size: int, within: bytes) -> Cut:
    """Return the beginning of a value of `size` bytes, with a sentence about the rest; `within` is what was read."""
    kept, digest = value[:KEPT_BYTES], hashlib.sha256(within).hexdigest()
    return Cut(
        kept,
        f"a value of {size} bytes, of which the first {len(kept)} are kept; "
        f"SHA-256 of its first {len(within)} bytes: {digest}",
    )


def read_records(batch: Any, payload: bytes, number: int, largest: int) -> Iterator[Any]:
    """Read the `number` records of a batch whose header aiokafka has read (`batch`), decompressing as little as can be.

    A record above `largest` bytes has a `Cut` in place of its value.

    Raises:
        CorruptRecordException: the bytes are not records.
    """
    stream = _Stream(source(batch.compression_type, payload))
    for index in range(number):
        try:
            length = stream.varint()
            if length <= largest:
                yield _parse(batch, stream.take(length))
                continue
            record, read = _beginning(batch, stream, length, largest)
        except (ValueError, IndexError, EOFError, OSError) as error:
            raise CorruptRecordException(f"a record cannot be read: {error}") from error
        yield record
        if index + 1 < number:
            stream.skip(length - read)


def _parse(batch: Any, body: bytes) -> Any:
    """Read one whole record with aiokafka's reader in Python, which takes any header name (`service.kafka.records`)."""
    reader = batch.reader(body)
    return reader._read_msg()  # noqa: SLF001 - aiokafka has no other place for it


def _beginning(batch: Any, stream: _Stream, length: int, largest: int) -> tuple[Any, int]:
    """Read a record as far as `largest` bytes; return it without headers, and how much of it was read."""
    body = stream.take(largest)
    at = 1  # attributes
    delta, at = decode_varint(body, at)
    offset, at = decode_varint(body, at)
    key_size, at = decode_varint(body, at)
    key = None if key_size < 0 else body[at : at + key_size]
    at += max(key_size, 0)
    size, at = decode_varint(body, at) if at + _LONGEST_VARINT < len(body) else (0, len(body))
    value = cut(body[at:], size, body[at : at + max(size, 0)]) if size > 0 else cut(b"", length, body)
    stored_key = None if key is None else key[:KEPT_BYTES]
    timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta
    record = _DefaultRecordPy(batch.base_offset + offset, timestamp, batch.timestamp_type, stored_key, value, [])
    return record, len(body)


class _Stream:
    """Bytes that are read once, from the front."""

    def __init__(self, opened: Source) -> None:
        self._source = opened
        self._buffer = bytearray()

    def varint(self) -> int:
        """Read one number."""
        self._fill(_LONGEST_VARINT, at_least=1)
        value, used = decode_varint(self._buffer, 0)
        del self._buffer[:used]
        return int(value)

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        if size < 0:
            raise ValueError(f"a length of {size}")
        self._fill(size, at_least=size)
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def skip(self, size: int) -> None:
        """Pass so many bytes by without keeping them."""
        while size > 0:
            size -= len(self.take(min(size, _PIECE)))

    def _fill(self, size: int, at_least: int) -> None:
        while len(self._buffer) < size:
            piece = self._source.read(_PIECE)
            if not piece:
                break
            self._buffer += piece
        if len(self._buffer) < at_least:
            raise EOFError("the batch ends within a record")
