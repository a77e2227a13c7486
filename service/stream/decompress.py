"""Decompress record batches within a memory limit.

aiokafka decompresses a whole batch at once. A batch within the limit is still read in that fast way. A larger one is
decompressed as a stream, and read record by record.
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
"""The largest window of zstd, in bytes, as brokers accept it."""
LARGEST_BLOCK = 512 * 1024 * 1024
"""The largest decompressed snappy block, in bytes, because a block cannot be read in pieces. The codec decompresses a
byte to at most twenty.
"""
_PATCHED = {
    "aiokafka.record._crecords.default_records": ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"),
    "aiokafka.record.default_records": ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"),
    "aiokafka.record._crecords.legacy_records": ("gzip_decode", "snappy_decode", "lz4_decode"),
    "aiokafka.record.legacy_records": ("gzip_decode", "snappy_decode", "lz4_decode"),
}
"""The modules of aiokafka that call decompressors, and the names of the functions there."""
_XERIAL_HEADER = 16


class TooLargeAtOnce(Exception):  # noqa: N818 - a state
    """A batch is larger than the limit, or damaged. Reading it as a stream shows which of the two."""


class Source(Protocol):
    """A stream of decompressed bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, or b"" at the end."""


def bound_decompression(limit: int) -> None:
    """Patch aiokafka to decompress at most `limit` bytes of a batch at once.

    Raises:
        RuntimeError: The installed aiokafka has no such decompressors.
    """
    bounded = _BoundedCodecs(limit)
    for name, functions in _PATCHED.items():
        module = import_module(name)
        for function in functions:
            if not hasattr(module, function):
                raise RuntimeError(f"the installed aiokafka has no {name}.{function}: see service/stream/decompress.py")
            setattr(module, function, getattr(bounded, function))


class _BoundedCodecs:
    """Replacements of aiokafka's decompressors with a limit. They share a buffer, as one thread reads all records."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def gzip_decode(self, payload: Any) -> bytes:
        """Return decompressed gzip data."""
        found = gzip.GzipFile(fileobj=BytesIO(payload), mode="r").read(self._limit + 1)
        if len(found) > self._limit:
            raise TooLargeAtOnce
        return found

    def snappy_decode(self, payload: Any) -> bytes:
        """Return decompressed snappy data, in blocks or raw."""
        found = bytearray()
        for block in _snappy_blocks(payload, self._limit):
            found += block
            if len(found) > self._limit:
                raise TooLargeAtOnce
        return bytes(found)

    def lz4_decode(self, payload: Any) -> bytes:
        """Return decompressed LZ4 data."""
        return self._into_buffer(cramjam.lz4.decompress_into, payload)

    def zstd_decode(self, payload: Any) -> bytes:
        """Return decompressed Zstandard data."""
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
        CorruptRecordException: The codec is unknown.
    """
    if codec == GZIP:
        return gzip.GzipFile(fileobj=BytesIO(payload), mode="r")
    if codec == SNAPPY:
        return _BlockStream(_snappy_blocks(payload, LARGEST_BLOCK))
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


class _BlockStream:
    """A stream over an iterator of blocks."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = BytesIO()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, or b"" at the end."""
        while True:
            if found := self._block.read(size):
                return found
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._block = BytesIO(block)


def _snappy_blocks(payload: Any, largest: int) -> Iterator[bytes]:
    """Decompress block by block. The size of a block is known before it is decompressed.

    Raises:
        TooLargeAtOnce: A block is larger than `largest`.
    """
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
"""How many bytes of a value above the limit are stored."""
_READ_BYTES = 64 * 1024
_LONGEST_VARINT = 10


def cut(value: bytes, size: int, within: bytes) -> Cut:
    """Return the beginning of a value of `size` bytes, with a description that has the digest of `within`.

    `within` is the part of the value that was read.
    """
    kept, digest = value[:KEPT_BYTES], hashlib.sha256(within).hexdigest()
    return Cut(
        kept,
        f"a value of {size} bytes, of which the first {len(kept)} are stored; "
        f"SHA-256 of its first {len(within)} bytes: {digest}",
    )


def read_records(batch: Any, payload: bytes, number: int, largest: int) -> Iterator[Any]:
    """Yield the `number` records of a batch whose header aiokafka has read, decompressing only what is needed.

    A record above `largest` bytes has a `Cut` as its value.

    Raises:
        CorruptRecordException: The bytes are not records.
    """
    stream = _Stream(source(batch.compression_type, payload))
    for index in range(number):
        try:
            length = stream.varint()
            if length <= largest:
                yield _parse(batch, stream.take(length))
                continue
            record, read = _read_beginning(batch, stream, length, largest)
        except (ValueError, IndexError, EOFError, OSError) as error:
            raise CorruptRecordException(f"a record cannot be read: {error}") from error
        yield record
        if index + 1 < number:
            stream.skip(length - read)


def _parse(batch: Any, body: bytes) -> Any:
    """Read a whole record with the reader of `service.stream.records`, which accepts any header name."""
    reader = batch.reader(body)
    return reader._read_msg()  # noqa: SLF001 - aiokafka has no public function for it


def _read_beginning(batch: Any, stream: _Stream, length: int, largest: int) -> tuple[Any, int]:
    """Read the first `largest` bytes of a record. Return the record without headers, and how many bytes were read."""
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
    """A buffered reader of a source."""

    def __init__(self, opened: Source) -> None:
        self._source = opened
        self._buffer = bytearray()

    def varint(self) -> int:
        """Read one number in variable-length encoding."""
        self._fill(_LONGEST_VARINT, at_least=1)
        value, used = decode_varint(self._buffer, 0)
        del self._buffer[:used]
        return int(value)

    def take(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        if size < 0:
            raise ValueError(f"a length of {size}")
        self._fill(size, at_least=size)
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def skip(self, size: int) -> None:
        """Read and discard `size` bytes."""
        while size > 0:
            size -= len(self.take(min(size, _READ_BYTES)))

    def _fill(self, size: int, at_least: int) -> None:
        while len(self._buffer) < size:
            data = self._source.read(_READ_BYTES)
            if not data:
                break
            self._buffer += data
        if len(self._buffer) < at_least:
            raise EOFError("the batch ends within a record")
