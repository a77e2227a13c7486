"""`GET /dead-letters`, `GET /dead-letters/{id}`, `POST /dead-letters/replay`, `POST /dead-letters/discard`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import Depends, Query

import service.web.http  # noqa: F401 - for {…:id}
from events.base import INT8_MAX
from service.admin import letters
from service.admin.cursors import decode, not_a_cursor
from service.admin.identity import Refused
from service.admin.letters import Selection
from service.core.names import LetterState
from service.dead_letters.read import as_document
from service.web.api.backend import Allowed, Caller, Reader
from service.web.api.bodies import make_router
from service.web.api.dead_letter_models import (
    DeadLetter,
    DeadLetterCount,
    DeadLetterLine,
    LetterAction,
    LetterAnswer,
    Moment,
    ReasonName,
    TopicName,
)
from service.web.api.models import LetterNumber, UserNumber
from service.web.api.pages import AS_CSV, Page
from service.web.api.problems import documented

router = make_router("dead letters")


def _selection(  # noqa: PLR0913, PLR0917 - each is a parameter of the query
    reason: Annotated[ReasonName | None, Query()] = None,
    topic: Annotated[TopicName | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="First seen at this time or later.")] = None,
    until: Annotated[Moment | None, Query(description="First seen before this time.")] = None,
    user_id: Annotated[
        UserNumber | None, Query(description="The user in the record's key, or in `user_id` of its JSON.")
    ] = None,
    text: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            pattern=r"^[^\u0000]+$",
            description="Text in the detail, without regard to case; or exact text in the key, value or headers.",
        ),
    ] = None,
    state: Annotated[
        LetterState, Query(description="`replaying`: open letters that were replayed and have no outcome yet.")
    ] = "open",
) -> Selection:
    return Selection(None, reason, topic, since, until, user_id, state, text)


@router.get(
    "/dead-letters", response_model=list[DeadLetterLine] | list[DeadLetterCount], responses=AS_CSV | documented()
)
async def list_dead_letters(
    caller: Reader,
    page: Annotated[Page, Depends()],
    selection: Annotated[Selection, Depends(_selection)],
    group: Annotated[
        Literal["reason"] | None, Query(description="Return the number of open letters of each reason instead.")
    ] = None,
) -> list[dict[str, Any]]:
    """Return dead letters, the newest first.

    A page of one user's letters may be short and not be the last one. Only the last page has no `Link`.
    """
    if group is not None:
        if selection != Selection():
            raise Refused("group=reason counts all open letters. Leave out the other conditions.")
        counted = await letters.count_letters(caller.engine, caller.settings, caller.who)
        return [dataclasses.asdict(one) for one in counted]
    before = None if page.cursor is None else _id_of(page.cursor)
    found = await letters.list_letters(
        caller.engine, caller.settings, caller.who, selection, before=before, limit=page.limit
    )
    if found.next is not None:
        page.link_next(found.next)
    return [seen.as_dict() for seen in found.lines]


@router.get("/dead-letters/{letter_id:id}", response_model=DeadLetter, responses=documented(404))
async def read_dead_letter(letter_id: LetterNumber, caller: Reader) -> dict[str, Any]:
    """Return one dead letter with its record, and whether it would apply now."""
    seen = await letters.find_letter(caller.engine, caller.settings, caller.who, letter_id)
    return as_document(seen.letter) | seen.verdict.as_dict()


@router.post("/dead-letters/replay", response_model=LetterAnswer, responses=documented(413, 415))
async def replay_dead_letters(
    body: LetterAction, caller: Annotated[Caller, Depends(Allowed("replay_letters"))]
) -> letters.Handled:
    """Send the raw records to their topics again.

    A record that applies closes its letter. A record that fails again raises the letter's number of attempts.
    """
    return await letters.replay_letters(caller.engine, caller.who, _meant(body), dry_run=body.dry_run)


@router.post("/dead-letters/discard", response_model=LetterAnswer, responses=documented(413, 415))
async def discard_dead_letters(
    body: LetterAction, caller: Annotated[Caller, Depends(Allowed("discard_letters"))]
) -> letters.Handled:
    """Close letters without applying them. They can be read until their retention ends."""
    return await letters.discard_letters(caller.engine, caller.who, _meant(body), dry_run=body.dry_run)


def _meant(body: LetterAction) -> Selection:
    if body.ids is not None:
        return Selection(ids=tuple(body.ids))
    return Selection(**body.filter.conditions()) if body.filter else Selection()


def _id_of(cursor: str) -> int:
    match decode(cursor):
        case [int(letter_id)] if 0 < letter_id <= INT8_MAX:
            return letter_id
        case _:
            raise not_a_cursor()
