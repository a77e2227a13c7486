"""Decompression with a bound: a kilobyte on the wire may be a gigabyte in memory.

aiokafka decompresses a whole batch at once. Here a batch that stays within the bound goes the same fast way; the others
are read as a stream (`service.kafka.streamed`), a record at a time.
"""

from __future__ import annotations

import gzip
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
