"""`levelsync dead-letters`: list and show dead letters, replay or discard them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import context, letter_writes, output
from service.cli.context import AsCsv, AsJson
from service.cli.exits import WrongUse
from service.cli.letter_view import say_next_page, sheet_of_letters, show_counts, show_letter, show_page
from service.cli.letter_writes import Reason, Since, Topic, Until, User, selection
from service.core.names import LETTER_STATES

if TYPE_CHECKING:
    from service.admin.letters import CountedReason, SeenLetter, SeenPage
    from service.dead_letters.select import Selection
    from service.settings import Settings

_PAGE, _LONGEST_PAGE = 100, 1000
app = typer.Typer(help="Records that could not be applied. They are stored whole.", no_args_is_help=True)
app.command()(letter_writes.replay)
app.command()(letter_writes.discard)


@app.command("list")
def list_letters(
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    state: Annotated[
        str,
        typer.Option(
            help="open, replaying (sent less than a minute ago), resolved or all.",
            autocompletion=context.complete(LETTER_STATES),
        ),
    ] = "open",
    limit: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Letters on a page.", show_default="100; CSV: all pages")
    ] = None,
    cursor: Annotated[
        int | None, typer.Option(help="Continue after this letter: the cursor of the page before.")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Count the open dead letters by reason; with an option that selects letters, list them, newest first."""
    context.check_one_form(as_json, as_csv)
    wanted = selection(state, reason=reason, topic=topic, since=since, until=until, user_id=user)
    settings = context.settings()
    if wanted.everything and state == "open" and cursor is None:
        show_counts(asyncio.run(_count(settings)), as_json=as_json, as_csv=as_csv)
    elif as_csv:
        asyncio.run(_print_sheet(settings, wanted, cursor, limit))
    else:
        show_page(asyncio.run(_list(settings, wanted, cursor, limit or _PAGE)), as_json=as_json)


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="A letter's id, as the list shows it.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its record with all bytes, its reason, and whether it would apply now."""
    from service.dead_letters.read import as_document

    seen = asyncio.run(_find(context.settings(), letter_id))
    if seen is None:
        raise WrongUse(f"there is no dead letter {letter_id}: levelsync dead-letters list --state all lists them")
    if as_json:
        output.print_json(as_document(seen.letter) | seen.verdict.as_dict())
    else:
        show_letter(seen)


async def _count(settings: Settings) -> list[CountedReason]:
    from service.admin.letters import read_counts
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await read_counts(conn, settings)


async def _list(settings: Settings, wanted: Selection, cursor: int | None, limit: int) -> SeenPage:
    from service.admin.letters import read_lines
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await read_lines(conn, settings, wanted, cursor, limit)


async def _print_sheet(settings: Settings, wanted: Selection, cursor: int | None, limit: int | None) -> None:
    """Print letters as CSV: `limit` of them, or all, page by page."""
    from service.admin.letters import read_lines
    from service.cli import reach

    sheet = sheet_of_letters()
    async with reach.database(settings) as conn:
        while True:
            page = await read_lines(conn, settings, wanted, cursor, limit or _LONGEST_PAGE)
            for seen in page.lines:
                sheet.add(seen)
            if page.next is None or limit is not None:
                break
            cursor = page.next
    sheet.end()
    say_next_page(page)


async def _find(settings: Settings, letter_id: int) -> SeenLetter | None:
    from service.admin.letters import read_letter
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await read_letter(conn, settings, letter_id)
