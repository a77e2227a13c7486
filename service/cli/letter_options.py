"""The options that say which dead letters are meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.exits import WrongUse

if TYPE_CHECKING:
    from service.dead_letters.select import Selection

TIME = "a time as 2026-11-23T09:00, in UTC without a zone, or so long ago as 2h or 3d"
Reason = Annotated[str | None, typer.Option(help="Only letters of this reason.")]
Topic = Annotated[str | None, typer.Option(help="Only letters of this topic.")]
Since = Annotated[str | None, typer.Option(help=f"Only letters first seen since {TIME}.")]
Until = Annotated[str | None, typer.Option(help="Only letters first seen before, written in the same way.")]
User = Annotated[int | None, typer.Option(help="Only letters of this user, by key or by the JSON's user_id.")]


def selection(state: str = "open", ids: list[int] | None = None, **narrowed: Any) -> Selection:
    """What the options mean.

    Raises:
        WrongUse: a reason or a state that there is not, or a time that is none.
    """
    from service.dead_letters import MEANINGS
    from service.dead_letters.select import STATES, Selection

    reason = narrowed.get("reason")
    if reason is not None and reason not in MEANINGS:
        raise WrongUse(f"there is no reason {reason}; the reasons are {', '.join(MEANINGS)}")
    if state not in STATES:
        raise WrongUse(f"there is no state {state}; the states are {', '.join(STATES)}")
    for name in ("since", "until"):
        narrowed[name] = moment(name, narrowed.get(name))
    return Selection(ids=tuple(ids) if ids else None, state=state, **narrowed)


def moment(name: str, given: str | None) -> datetime | None:
    """Read the time of an option.

    Raises:
        WrongUse: it is none.
    """
    from service.settings import parse_duration

    if given is None:
        return None
    try:
        read = datetime.fromisoformat(given)
    except ValueError:
        try:
            ago = parse_duration(given)
        except ValueError:
            raise WrongUse(f"--{name} {given}: give {TIME}") from None
        assert isinstance(ago, timedelta)  # noqa: S101 - what parse_duration makes of text
        return datetime.now(UTC) - ago
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read
