"""Publishing a file of events, a line each: read, checked and sent piece by piece, in bounded memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import text

from service.cli import output, reach
from service.cli.exits import Unreachable, WrongUse
from service.cli.publish_wait import Sent, following, letters_of, wait_until_read
from service.kafka.producer import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from rich.progress import Progress

    from service.kafka.delivery import Message
    from service.settings import Settings

_PIECE_BYTES = 1 << 18


@dataclass
class _Tally:
    """How many events Kafka has, and the number of the last line read."""

    sent: int = 0
    line: int = 0
    places: Sent | None = None
    """Where they are, if they are waited for."""


def publish_file(settings: Settings, file: Path, seconds: float | None = None) -> dict[str, Any]:
    """Send every event of `file` (`-`: stdin), and wait so many seconds until they are read; return the report.

    Raises:
        WrongUse: the file cannot be read, or a line is no event; the events before it are sent, the rest is not.
        Unreachable: Kafka did not confirm an event; nothing after it is claimed as sent. Or nobody read them in time.
    """
    try:
        stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from error
    tally = _Tally()
    # asyncio's own handler waits for its loop, which waits for the next line of a slow pipe.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stream:
            return asyncio.run(_publish_and_wait(settings, stream, tally, seconds))
    except KeyboardInterrupt:
        output.remark(f"levelsync: stopped; {output.counted(tally.sent, 'event')} sent, the rest is not claimed")
        raise


async def _publish_and_wait(
    settings: Settings, stream: BinaryIO, tally: _Tally, seconds: float | None
) -> dict[str, Any]:
    if seconds is None:
        await _publish(settings, stream, tally)
        return {"sent": tally.sent}
    tally.places = Sent()
    async with reach.database(settings) as conn:  # before anything is published: what becomes of it is read there
        await conn.execute(text("SELECT FROM levelsync.applied_offsets LIMIT 0"))
        await conn.rollback()
        await _publish(settings, stream, tally)
        await wait_until_read(conn, tally.places, seconds)
        return {"sent": tally.sent, "dead_letters": await letters_of(conn, tally.places)}


async def _publish(settings: Settings, stream: BinaryIO, tally: _Tally) -> None:
    from service.kafka.producer import running_producer

    async with reach.kafka(settings):
        await reach.topics(settings)
        async with running_producer(settings) as producer, following(settings, producer, tally.places):
            with _progress(stream) as bar:
                for lines in read_pieces(stream):
                    await _send_lines(producer, lines, tally)
                    bar.update(bar.task_ids[0], advance=sum(len(line) + 1 for line in lines), sent=tally.sent)


async def _send_lines(producer: AIOKafkaProducer, lines: list[bytes], tally: _Tally) -> None:
    from service.kafka.delivery import NotDelivered, deliver

    messages, trouble = _read(lines, tally)
    try:
        places = await deliver(producer, messages)
        tally.sent += len(places)
        if tally.places is not None:
            tally.places.add(places)
    except NotDelivered as error:
        tally.sent += error.confirmed
        raise Unreachable(
            f"Kafka did not take an event: {error}. {_before(tally)} sent; it and those after it are not known to be"
        ) from error
    if trouble:
        raise WrongUse(
            f"line {tally.line}: {trouble}. {_before(tally)} sent, nothing after it is. "
            "A line is one CloudEvent in structured mode: levelsync schema --out DIR writes what it must look like"
        )


def _before(tally: _Tally) -> str:
    return "The 1 event before it is" if tally.sent == 1 else f"The {tally.sent:,} events before it are"


def _read(lines: list[bytes], tally: _Tally) -> tuple[list[Message], str]:
    """Read events up to the first bad line; '' as the trouble means that there is none."""
    from events import ContractViolation, read_line

    messages: list[Message] = []
    for line in lines:
        tally.line += 1
        try:
            if line.strip():
                messages.append(read_line(line).to_kafka())
        except ContractViolation as violation:
            return messages, str(violation)
    return messages, ""


def read_pieces(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Give the stream's lines as they come, a list at a time: a slow pipe is published at its own pace.

    A line longer than a record may be is given as it stands and ends the stream: it is no event.
    """
    rest = b""
    while piece := stream.read1(_PIECE_BYTES):  # type: ignore[attr-defined]  # files and stdin are buffered readers
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
        if len(rest) > MAX_REQUEST_BYTES:
            break
    if rest:
        yield [rest]


def _progress(stream: BinaryIO) -> Progress:
    """Give a bar over the file's bytes; a pipe has no end to measure against, so it gets a count."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    size = os.fstat(stream.fileno()).st_size if stream.seekable() else None
    columns = (TextColumn("{task.fields[sent]} events"), BarColumn(), TimeRemainingColumn())
    bar = output.progress(*columns, transient=False)
    bar.add_task("sent", total=size, sent=0)
    return bar
