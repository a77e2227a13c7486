"""The pages of dead letters: counts by reason, a list, one letter, and replaying and discarding with a confirmation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any, Literal, cast

from starlette.datastructures import QueryParams
from starlette.responses import Response

from events import Reason
from events.base import INT8_MAX
from service.admin import letters
from service.admin.identity import NoSuch, Refused
from service.admin.letters import Handled
from service.core.names import LETTER_STATES
from service.dead_letters import LetterLine
from service.dead_letters.select import Selection
from service.web.page.visit import Visit, number_in, numbers_in, user_in, wants_csv

PAGE = 50
MAX_EXPORTED = 10_000
"""The maximum number of rows of a CSV file."""
_LONGEST_TEXT = 200
MAX_SHOWN = 64 * 1024
"""The maximum number of bytes of a value that the page shows."""
MAX_HEADERS, LONGEST_HEADER = 100, 1000
"""The maximum number of headers that the page shows, and of characters of each. A record may be full of headers."""
Verb = Literal["replay", "discard"]


async def list_letters(visit: Visit) -> Response:
    """Show the open letters by reason, and a list of letters."""
    settings, query = visit.parts.settings, visit.query
    selection = _shown(query)
    if wants_csv(query):
        return await _as_csv(visit, selection)
    counts = await letters.count_letters(visit.engine, settings, visit.who)
    before = number_in(query, "before")
    page = await letters.list_letters(visit.engine, settings, visit.who, selection, before=before, limit=PAGE)
    return visit.show(
        "letters.html", counts=counts, page=page, chosen=selection, first=before is None, states=LETTER_STATES
    )


async def _as_csv(visit: Visit, selection: Selection) -> Response:
    settings, before, rows = visit.parts.settings, None, list[LetterLine]()
    while len(rows) < MAX_EXPORTED:
        page = await letters.list_letters(visit.engine, settings, visit.who, selection, before=before, limit=1000)
        rows += [seen.line for seen in page.lines]
        before = page.next
        if before is None:
            break
    columns = [field.name for field in fields(LetterLine)]
    return visit.csv("dead-letters", columns, (astuple(line) for line in rows[:MAX_EXPORTED]))


async def show_letter(visit: Visit) -> Response:
    """Show one letter with its record."""
    letter_id: int = visit.request.path_params["letter_id"]
    if letter_id > INT8_MAX:
        raise NoSuch("There is no such dead letter.")
    seen = await letters.find_letter(visit.engine, visit.parts.settings, visit.who, letter_id)
    headers = [_header(one) for one in seen.letter.headers[:MAX_HEADERS]]
    shown = [(name[:LONGEST_HEADER], value[:LONGEST_HEADER]) for name, value in headers]
    all_shown = shown == headers and len(headers) == len(seen.letter.headers)
    return visit.show("letter.html", seen=seen, letter=seen.letter, most=MAX_SHOWN, shown=shown, all_shown=all_shown)


def _header(one: Mapping[str, Any]) -> tuple[str, str]:
    name = one["key"] if "key" in one else f"{one['key_base64']} (base64)"
    if "base64" in one:
        return name, f"{one['base64']} (base64)"
    return name, "(null)" if one["value"] is None else one["value"]


async def ask(visit: Visit) -> Response:
    """Show how many letters a replay or a discard would handle, and ask for confirmation."""
    verb = _verb(visit)
    selection = _selection(visit.request.query_params)
    would = await _do(visit, verb, selection, dry_run=True)
    return visit.show("letters_ask.html", verb=verb, chosen=selection, would=would)


async def replay(visit: Visit) -> Response:
    """Replay the chosen letters."""
    return await _act(visit, "replay")


async def discard(visit: Visit) -> Response:
    """Discard the chosen letters."""
    return await _act(visit, "discard")


async def _act(visit: Visit, verb: Verb) -> Response:
    selection = _selection(visit.form)
    done = await _do(visit, verb, selection, dry_run=False)
    return visit.show("letters_done.html", verb=verb, chosen=selection, done=done)


async def _do(visit: Visit, verb: Verb, selection: Selection, *, dry_run: bool) -> Handled:
    handle = letters.replay_letters if verb == "replay" else letters.discard_letters
    return await handle(visit.engine, visit.who, selection, dry_run=dry_run)


def _verb(visit: Visit) -> Verb:
    verb = visit.request.path_params["verb"]
    if verb not in {"replay", "discard"}:
        raise NoSuch("There is no such page.")
    return cast("Verb", verb)


def _shown(query: Mapping[str, str]) -> Selection:
    state = query.get("state") or "open"
    if state not in LETTER_STATES:
        raise Refused(f"There is no such state. Use one of {', '.join(LETTER_STATES)}.")
    text = query.get("text", "").strip()[:_LONGEST_TEXT] or None
    return Selection(reason=_reason(query), user_id=user_in(query), state=state, text=text)


def _selection(given: QueryParams | Mapping[str, str]) -> Selection:
    """Return the letters with the given ids or of the given reason, so that a missing field never selects all letters.

    Raises:
        Refused: neither ids nor a reason is given.
    """
    ids, reason = numbers_in(given, "id"), _reason(given)
    if not ids and reason is None:
        raise Refused("No letters are chosen. Check at least one, or choose all of one reason.")
    return Selection(ids=ids or None, reason=reason)


def _reason(given: Mapping[str, str]) -> str | None:
    named = given.get("reason") or None
    if named is not None and named not in set(Reason):
        raise Refused("There is no such reason.")
    return named
