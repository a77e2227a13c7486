"""`levelsync publish`: one event from options, or a file of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import Unreachable, WrongUse

if TYPE_CHECKING:
    from events import LicenseAdvanced, ProgressLeveledUp
    from service.settings import Settings

app = typer.Typer(help="Publish events, as the application's services do.", invoke_without_command=True)

User = Annotated[int, typer.Option(help="The user's id.")]
Specialization = Annotated[str, typer.Option(help="As PLAYER, COACH or INTERNSHIP; the case does not matter.")]
ToLevel = Annotated[int, typer.Option(help="The level that was reached.")]
FromLevel = Annotated[int | None, typer.Option(help="The level before; it never decides.")]
EventId = Annotated[str | None, typer.Option("--id", help="The event's id.", show_default="a new one")]
Source = Annotated[str, typer.Option(help="Who says so, as a URI reference.")]
Time = Annotated[str | None, typer.Option(help="When it happened, as 2026-01-31T12:00:00Z.", show_default="now")]
_SOURCE = "/levelsync/cli"


class Place(NamedTuple):
    """Where Kafka put a record."""

    topic: str
    partition: int
    offset: int


@app.callback()
def publish(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(allow_dash=True, dir_okay=False, help="One structured CloudEvent a line; - is stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish the events of a file, or one event by its options."""
    if (file is None) == (ctx.invoked_subcommand is None):
        raise WrongUse("publish takes either --file, or leveled-up or license-advanced with their options")
    if file is not None:
        from service.cli.publish_file import publish_file

        sent = publish_file(context.settings(), file)
        if as_json:
            output.print_json({"sent": sent})
        else:
            output.say(f"{sent} events sent")


@app.command("leveled-up")
def leveled_up(
    user: User,
    specialization: Specialization,
    to_level: ToLevel,
    from_level: FromLevel = None,
    event_id: EventId = None,
    source: Source = _SOURCE,
    time: Time = None,
    as_json: AsJson = False,
) -> None:
    """Publish one ProgressLeveledUp: a user's progress reached a level."""
    from events import ProgressLeveledUp

    data = {"user_id": user, "specialization": specialization, "to_level": to_level, "from_level": from_level}
    _publish_one(ProgressLeveledUp, data | _attributes(event_id, source, time), as_json=as_json)


@app.command("license-advanced")
def license_advanced(
    user: User,
    specialization: Specialization,
    to_level: ToLevel,
    from_level: FromLevel = None,
    advanced_by: Annotated[int | None, typer.Option(help="The user who advanced it.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    requirements_met: Annotated[str | None, typer.Option(help="Which requirements were met.")] = None,
    event_id: EventId = None,
    source: Source = _SOURCE,
    time: Time = None,
    as_json: AsJson = False,
) -> None:
    """Publish one LicenseAdvanced: a user's license was advanced."""
    from events import LicenseAdvanced

    data = {"user_id": user, "specialization": specialization, "to_level": to_level, "from_level": from_level}
    more = {"advanced_by": advanced_by, "reason": reason, "requirements_met": requirements_met}
    _publish_one(LicenseAdvanced, data | more | _attributes(event_id, source, time), as_json=as_json)


def _attributes(event_id: str | None, source: str, time: str | None) -> dict[str, Any]:
    return {"id": event_id, "source": source, "time": _read_time(time)}


def _read_time(text: str | None) -> datetime | None:
    """Read a time; one without a zone is UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongUse(f"--time {text}: write it as 2026-01-31T12:00:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _publish_one(kind: type[ProgressLeveledUp | LicenseAdvanced], data: dict[str, Any], *, as_json: bool) -> None:
    event = _make(kind, data)
    place = asyncio.run(_send(context.settings(), event))
    if as_json:
        output.print_json({"id": event.id, "type": event.TYPE, **place._asdict()})
    else:
        output.say(f"{event.TYPE} {event.id} is in {place.topic}, partition {place.partition}, offset {place.offset}")


def _make(kind: type[ProgressLeveledUp | LicenseAdvanced], data: dict[str, Any]) -> ProgressLeveledUp | LicenseAdvanced:
    """Make the event, and refuse one that every consumer would make a dead letter.

    Raises:
        WrongUse: naming each option that cannot be.
    """
    from pydantic import ValidationError

    from events import ContractViolation, read

    try:
        event = kind(**data)
        record = event.to_kafka()
        read(record.topic, record.value, record.headers, int(datetime.now(UTC).timestamp() * 1000))
    except ValidationError as error:
        raise WrongUse("; ".join(_in_options(problem) for problem in error.errors())) from error
    except ContractViolation as error:
        raise WrongUse(error.detail) from error
    return event


def _in_options(problem: Any) -> str:
    """Say what is wrong with a field under its option's name."""
    name = ".".join(map(str, problem["loc"])).removesuffix("_id").replace("_", "-")
    words = str(problem["msg"]).removeprefix("Value error, ")
    return f"--{name}: {words}" if name else words


async def _send(settings: Settings, event: ProgressLeveledUp | LicenseAdvanced) -> Place:
    from service.cli import reach
    from service.kafka.delivery import NotDelivered, deliver
    from service.kafka.producer import running_producer

    async with reach.kafka(settings):
        await reach.topics(settings)
        async with running_producer(settings) as producer:
            try:
                (place,) = await deliver(producer, [event.to_kafka()])
            except NotDelivered as error:
                raise Unreachable(f"Kafka did not take the event: {error}") from error
    return Place(place.topic, place.partition, place.offset)
