"""`levelsync publish`: publish one event from options, or a file of events."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import Exit, Unreachable, WrongUse
from service.cli.publish_wait import RecordOutcome, Sent, following, letters_of, wait_until_read
from service.core.names import counted

if TYPE_CHECKING:
    from datetime import timedelta

    from aiokafka import AIOKafkaProducer
    from aiokafka.structs import RecordMetadata
    from rich.progress import Progress

    from events import LicenseAdvanced, ProgressLeveledUp
    from service.settings import Settings
    from service.stream.producer import Message

_PIECE_BYTES = 1 << 18


@dataclass
class _Tally:
    """The number of events that Kafka has confirmed, and the number of the last line that was read."""

    sent: int = 0
    line: int = 0
    places: Sent | None = None
    """Where Kafka stored the events; None without --wait."""


def publish_file(settings: Settings, file: Path, seconds: float | None = None) -> dict[str, Any]:
    """Send every event of `file` (`-`: stdin) and return the report. With `seconds`, wait until they are read.

    Raises:
        WrongUse: the file cannot be read, or a line is not an event. The events before that line are sent.
        Unreachable: Kafka did not confirm an event, or no applier read the events within `seconds`.
    """
    try:
        stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from error
    tally = _Tally()
    try:
        with stream:
            return asyncio.run(_publish_and_wait(settings, stream, tally, seconds))
    except KeyboardInterrupt:
        output.print_note(f"levelsync: stopped; {counted(tally.sent, 'event')} sent; later ones may be in Kafka too")
        raise


async def _publish_and_wait(
    settings: Settings, stream: BinaryIO, tally: _Tally, seconds: float | None
) -> dict[str, Any]:
    from sqlalchemy import text

    from service.cli import reach

    if seconds is None:
        await _publish(settings, stream, tally)
        return {"sent": tally.sent}
    tally.places = Sent()
    async with reach.database(settings) as conn:  # before anything is published, because the outcome is read there
        await conn.execute(text("SELECT FROM levelsync.applied_offsets LIMIT 0"))
        await conn.rollback()
        await _publish(settings, stream, tally)
        await wait_until_read(conn, tally.places, seconds)
        return {"sent": tally.sent, "dead_letters": await letters_of(conn, tally.places)}


async def _publish(settings: Settings, stream: BinaryIO, tally: _Tally) -> None:
    from service.cli import reach
    from service.stream.producer import running_producer

    async with reach.kafka(settings):
        await reach.topics(settings)
        async with running_producer(settings) as producer, following(settings, producer, tally.places):
            with context.ctrl_c_at_once(), _progress(stream) as bar:
                for lines in read_pieces(stream):
                    await _send_lines(producer, lines, tally)
                    bar.update(bar.task_ids[0], advance=sum(len(line) + 1 for line in lines), sent=tally.sent)


async def _send_lines(producer: AIOKafkaProducer, lines: list[bytes], tally: _Tally) -> None:
    from service.stream.producer import NotDelivered, deliver

    messages, trouble = _read(lines, tally)
    try:
        places = await deliver(producer, messages)
        tally.sent += len(places)
        if tally.places is not None:
            tally.places.add(places)
    except NotDelivered as error:
        tally.sent += error.confirmed
        raise Unreachable(
            f"Kafka did not accept an event: {error}. {_before(tally)} sent. It and later ones may be in Kafka too"
        ) from error
    if trouble:
        raise WrongUse(
            f"line {tally.line}: {trouble}. {_before(tally)} sent, and nothing after it. "
            "A line is one CloudEvent in structured mode: levelsync schema --out DIR writes the schemas"
        )


def _before(tally: _Tally) -> str:
    if not tally.sent:
        return "Nothing before it is"
    return "The 1 event before it is" if tally.sent == 1 else f"The {tally.sent:,} events before it are"


def _read(lines: list[bytes], tally: _Tally) -> tuple[list[Message], str]:
    """Read events up to the first bad line; return them and its fault, which is '' if every line is good."""
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
    """Yield the stream's lines as they arrive, in lists, so that a slow pipe is published without delay.

    A line that is longer than a record may be is yielded as it is and ends the stream, because it is not an event.
    """
    from service.stream.producer import MAX_REQUEST_BYTES

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
    """Return a progress bar over the file's bytes. A pipe has no known end, so its bar only counts."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    size = os.fstat(stream.fileno()).st_size if stream.seekable() else None
    columns = (TextColumn("{task.fields[sent]} events"), BarColumn(), TimeRemainingColumn())
    bar = output.progress(*columns, transient=False)
    bar.add_task("sent", total=size, sent=0)
    return bar


app = typer.Typer(help="Publish events to Kafka, as the application does.", invoke_without_command=True)

User = Annotated[int, typer.Option(help="The user's id.")]
Specialization = Annotated[
    str,
    typer.Option(
        help="Such as PLAYER, COACH or INTERNSHIP; the case does not matter.", autocompletion=context.specializations
    ),
]
ToLevel = Annotated[int, typer.Option(help="The level that was reached.")]
FromLevel = Annotated[int | None, typer.Option(help="The level before. It never decides what is written.")]
EventId = Annotated[str | None, typer.Option("--id", help="The event's id.", show_default="a new one")]
Source = Annotated[str, typer.Option(help="The publisher, as a URI reference.")]
Time = Annotated[str | None, typer.Option(help="When it happened, such as 2026-01-31T12:00:00Z.", show_default="now")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until an applier has read it, and print its outcome.")]
Timeout = Annotated[str, typer.Option(help="How long --wait waits, such as 30s or 2m.")]
_SOURCE = "/levelsync/cli"
_DEFAULT_TIMEOUT = "30s"
_WARNING_WITHIN = 1.0
"""Seconds to wait for a warning after Kafka has the event. The database is not needed and may not answer."""


@app.callback()
def publish(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(allow_dash=True, dir_okay=False, help="One structured CloudEvent on each line; - is stdin."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = _DEFAULT_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Publish the events of a file, or one event from options."""
    if (file is None) == (ctx.invoked_subcommand is None):
        raise WrongUse("give publish either --file, or leveled-up or license-advanced with their options")
    if file is None:
        if wait or as_json:
            raise WrongUse(f"put the options of one event after {ctx.invoked_subcommand}")
        return

    seconds = _seconds(wait, timeout)
    report = publish_file(context.settings(), file, seconds)
    if as_json:
        output.print_json(report)
    else:
        output.print_line(_summary(report))
    if report.get("dead_letters"):
        raise typer.Exit(Exit.NO)


def _summary(report: dict[str, Any]) -> str:
    sent = counted(report["sent"], "event")
    if "dead_letters" not in report:
        return f"{sent} sent"
    letters = report["dead_letters"]
    if not letters:
        return f"{sent} sent and read; none is a dead letter"
    named = ", ".join(f"{reason} {number:,}" for reason, number in sorted(letters.items()))
    return f"{sent} sent and read; {counted(sum(letters.values()), 'dead letter')}: {named}"


def _seconds(wait: bool, timeout: str) -> float | None:
    """Return how many seconds to wait; None: not at all.

    Raises:
        WrongUse: `timeout` is not a duration, or is given without --wait.
    """
    from service.settings import parse_duration

    try:
        duration = parse_duration(timeout)
    except ValueError as error:
        raise WrongUse(f"--timeout {timeout}: {error}") from error
    if timeout != _DEFAULT_TIMEOUT and not wait:
        raise WrongUse("--timeout is used only with --wait: add --wait")
    return cast("timedelta", duration).total_seconds() if wait else None


@app.command("leveled-up")
def leveled_up(
    user: User,
    specialization: Specialization,
    to_level: ToLevel,
    from_level: FromLevel = None,
    event_id: EventId = None,
    source: Source = _SOURCE,
    time: Time = None,
    wait: Wait = False,
    timeout: Timeout = _DEFAULT_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Publish one ProgressLeveledUp: a user's progress reached a level."""
    from events import ProgressLeveledUp

    data = {"user_id": user, "specialization": specialization, "to_level": to_level, "from_level": from_level}
    seconds = _seconds(wait, timeout)
    _publish_one(ProgressLeveledUp, data | _attributes(event_id, source, time), seconds, as_json=as_json)


@app.command("license-advanced")
def license_advanced(
    user: User,
    specialization: Specialization,
    to_level: ToLevel,
    from_level: FromLevel = None,
    advanced_by: Annotated[int | None, typer.Option(help="The user who advanced the license.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why the license was advanced.")] = None,
    requirements_met: Annotated[str | None, typer.Option(help="Which requirements were met.")] = None,
    event_id: EventId = None,
    source: Source = _SOURCE,
    time: Time = None,
    wait: Wait = False,
    timeout: Timeout = _DEFAULT_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Publish one LicenseAdvanced: a user's license was advanced."""
    from events import LicenseAdvanced

    data = {"user_id": user, "specialization": specialization, "to_level": to_level, "from_level": from_level}
    more = {"advanced_by": advanced_by, "reason": reason, "requirements_met": requirements_met}
    seconds = _seconds(wait, timeout)
    _publish_one(LicenseAdvanced, data | more | _attributes(event_id, source, time), seconds, as_json=as_json)


def _attributes(event_id: str | None, source: str, time: str | None) -> dict[str, Any]:
    return {"id": event_id, "source": source, "time": _read_time(time)}


def _read_time(text: str | None) -> datetime | None:
    """Read a time. Without a zone it is UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongUse(f"--time {text}: write it as 2026-01-31T12:00:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _publish_one(
    kind: type[ProgressLeveledUp | LicenseAdvanced], data: dict[str, Any], seconds: float | None, *, as_json: bool
) -> None:
    event = _make(kind, data)
    settings = context.settings()
    if seconds is None:
        place, outcome = asyncio.run(_send_and_warn(settings, event)), None
    else:
        place, outcome = asyncio.run(_send_and_wait(settings, event, seconds))
    where = {"topic": place.topic, "partition": place.partition, "offset": place.offset}
    if as_json:
        became = {} if outcome is None else asdict(outcome)
        output.print_json({"id": event.id, "type": event.TYPE, **where, **became})
    else:
        output.print_line(
            f"{event.TYPE} {event.id} is in {place.topic}, partition {place.partition}, offset {place.offset}"
        )
        if outcome is not None:
            output.print_line(outcome.in_words())
    if outcome is not None and outcome.dead_letter is not None:
        raise typer.Exit(Exit.NO)


async def _send_and_warn(settings: Settings, event: ProgressLeveledUp | LicenseAdvanced) -> RecordMetadata:
    """Send the event; during that, check whether it will become a dead letter, and warn."""
    looking = asyncio.create_task(_expected_faults(settings, event))
    try:
        place = await _send(settings, event)
        for fault in await asyncio.wait_for(looking, _WARNING_WITHIN):
            output.print_note(f"levelsync: warning: this will be a dead letter: {fault}")
    except TimeoutError:
        return place
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    return place


async def _expected_faults(settings: Settings, event: ProgressLeveledUp | LicenseAdvanced) -> list[str]:
    from service.cli import reach
    from service.cli.publish_wait import expected_faults

    try:
        async with reach.database(settings) as conn:
            return await expected_faults(conn, event)
    except Exception:  # noqa: BLE001 - publishing must not need the database
        return []


async def _send_and_wait(
    settings: Settings, event: ProgressLeveledUp | LicenseAdvanced, seconds: float
) -> tuple[RecordMetadata, RecordOutcome]:
    from service.cli import reach
    from service.cli.publish_wait import history_of, outcome_of, wait_until_read

    async with reach.database(settings) as conn:  # before anything is published, because the outcome is read there
        before = await history_of(conn, event)
        await conn.rollback()
        sent = Sent()
        place = await _send(settings, event, sent)
        await wait_until_read(conn, sent, seconds)
        return place, await outcome_of(conn, event, place, before)


def _make(kind: type[ProgressLeveledUp | LicenseAdvanced], data: dict[str, Any]) -> ProgressLeveledUp | LicenseAdvanced:
    """Create the event; refuse one that would become a dead letter in every database.

    Raises:
        WrongUse: it would. The text names each wrong option.
    """
    from pydantic import ValidationError

    from events import ContractViolation, read

    try:
        event = kind(**data)
        record = event.to_kafka()
        read(record.topic, record.value, record.headers, int(datetime.now(UTC).timestamp() * 1000))
    except ValidationError as error:
        raise WrongUse("; ".join(_with_option_name(problem) for problem in error.errors())) from error
    except ContractViolation as error:
        raise WrongUse(error.detail) from error
    return event


def _with_option_name(problem: Any) -> str:
    """Return what is wrong with a field, with the name of its option."""
    name = ".".join(map(str, problem["loc"])).removesuffix("_id").replace("_", "-")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"--{name}: {message}" if name else message


async def _send(
    settings: Settings, event: ProgressLeveledUp | LicenseAdvanced, sent: Sent | None = None
) -> RecordMetadata:
    """Send the event and return where Kafka stored it. Add it to `sent`, which --wait uses."""
    from service.cli import reach
    from service.stream.producer import NotDelivered, deliver, running_producer

    async with reach.kafka(settings):
        await reach.topics(settings)
        async with running_producer(settings) as producer, following(settings, producer, sent):
            try:
                places = await deliver(producer, [event.to_kafka()])
            except NotDelivered as error:
                raise Unreachable(f"Kafka did not accept the event: {error}") from error
            if sent is not None:
                sent.add(places)
    return places[0]
