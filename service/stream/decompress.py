"""Decompress record batches within a bound of memory; read one as a stream where it does not fit.

aiokafka decompresses a whole batch at once. Here a batch that stays within the bound goes the same fast way; the others
are read as a stream (`service.stream.decompress`), a record at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from io import BytesIO
from typing import Any, Protocol

import cramjam
import lz4.frame  # type: ignore[import-untyped]  # it ships no types
import zstandard
from aiokafka.codec import _detect_xerial_stream as is_xerial
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordPy
from aiokafka.record.util import decode_varint

from service.core.outcomes import Cut

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
"""Kafka's numbers of the codecs."""
LARGEST_WINDOW = 128 * 1024 * 1024
"""Bytes that zstd may look back: what brokers accept."""
LARGEST_BLOCK = 512 * 1024 * 1024
"""Bytes of one snappy block, which cannot be read in pieces. Its codec makes at most twenty bytes of one."""
_PATCHED = {
    "aiokafka.record._crecords.default_records": ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"),
    "aiokafka.record.default_records": ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"),
    "aiokafka.record._crecords.legacy_records": ("gzip_decode", "snappy_decode", "lz4_decode"),
    "aiokafka.record.legacy_records": ("gzip_decode", "snappy_decode", "lz4_decode"),
}
"""Where aiokafka finds its decompressors."""
_XERIAL_HEADER = 16


class TooLargeAtOnce(Exception):  # noqa: N818 - a state
    """A batch that is larger than the bound, or damaged: reading it as a stream tells which."""


class Source(Protocol):
    """Decompressed bytes, read a piece at a time."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


def bound_decompression(limit: int) -> None:
    """Let aiokafka decompress at most `limit` bytes of a batch at once.

    Raises:
        RuntimeError: this aiokafka decompresses elsewhere.
    """
    bounded = _Bounded(limit)
    for name, functions in _PATCHED.items():
        module = import_module(name)
        for function in functions:
            if not hasattr(module, function):
                raise RuntimeError(f"this aiokafka decompresses elsewhere: there is no {name}.{function}")
            setattr(module, function, getattr(bounded, function))


class _Bounded:
    """aiokafka's decompressors, each with a bound. They share one buffer, because one thread reads all records."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def gzip_decode(self, payload: Any) -> bytes:
        """Decompress gzip."""
        found = gzip.GzipFile(fileobj=BytesIO(payload), mode="r").read(self._limit + 1)
        if len(found) > self._limit:
            raise TooLargeAtOnce
        return found

    def snappy_decode(self, payload: Any) -> bytes:
        """Decompress snappy, in blocks or raw."""
        found = bytearray()
        for block in _snappy_blocks(payload, self._limit):
            found += block
            if len(found) > self._limit:
                raise TooLargeAtOnce
        return bytes(found)

    def lz4_decode(self, payload: Any) -> bytes:
        """Decompress LZ4."""
        return self._into_buffer(cramjam.lz4.decompress_into, payload)

    def zstd_decode(self, payload: Any) -> bytes:
        """Decompress Zstandard."""
        return self._into_buffer(cramjam.zstd.decompress_into, payload)

    def _into_buffer(self, decompress: Callable[[Any, bytearray], int], payload: Any) -> bytes:
        if not self._buffer:
            self._buffer = bytearray(self._limit)
        try:
            size = decompress(payload, self._buffer)
        except (cramjam.DecompressionError, OSError) as error:
            raise TooLargeAtOnce from error
        return bytes(memoryview(self._buffer)[:size])


def source(codec: int, payload: bytes) -> Source:
    """Return the decompressed bytes of a batch as a stream.

    Raises:
        CorruptRecordException: there is no such codec.
    """
    if codec == GZIP:
        return gzip.GzipFile(fileobj=BytesIO(payload), mode="r")
    if codec == SNAPPY:
        return _Blocks(_snappy_blocks(payload, LARGEST_BLOCK))
    if codec == LZ4:
        opened: Source = lz4.frame.LZ4FrameFile(BytesIO(payload), mode="r")
        return opened
    if codec == ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        stream: Source = reader.stream_reader(payload, read_across_frames=True)
        return stream
    if codec == 0:
        return BytesIO(payload)
    raise CorruptRecordException(f"there is no compression codec {codec}")


class _Blocks:
    """A stream over blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = BytesIO()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while True:
            if found := self._block.read(size):
                return found
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._block = BytesIO(block)


def _snappy_blocks(payload: Any, largest: int) -> Iterator[bytes]:
    """Decompress block by block; a block says how large it is before it is decompressed."""
    view = memoryview(payload)
    if not is_xerial(view):
        yield _snappy_block(view, largest)
        return
    at = _XERIAL_HEADER
    while at < len(view):
        (size,) = struct.unpack_from("!i", view, at)
        yield _snappy_block(view[at + 4 : at + 4 + size], largest)
        at += 4 + size


def _snappy_block(block: memoryview, largest: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) > largest:
        raise TooLargeAtOnce
    return bytes(cramjam.snappy.decompress_raw(block))


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
    """Read one whole record with aiokafka's reader in Python, which takes any header name (`stream.records`)."""
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
