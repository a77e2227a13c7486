"""`levelsync dead-letters`: list and show dead letters, replay or discard them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, letter_writes, output
from service.cli.context import AsCsv, AsJson
from service.cli.exits import WrongUse
from service.cli.letter_writes import Reason, Since, Topic, Until, User, selection
from service.core.names import LETTER_STATES, one_line
from service.core.sheet import LETTER_COLUMNS

if TYPE_CHECKING:
    from service.admin.letters import CountedReason, SeenLetter, SeenPage
    from service.dead_letters.select import Selection
    from service.settings import Settings

_PAGE, _LONGEST_PAGE = 100, 1000
app = typer.Typer(help="List, show, replay or discard records that could not be applied.", no_args_is_help=True)
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
        int | None, typer.Option(help="Continue after this letter: the cursor of the previous page.")
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
    print_next_page(page)


async def _find(settings: Settings, letter_id: int) -> SeenLetter | None:
    from service.admin.letters import read_letter
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await read_letter(conn, settings, letter_id)


_HEX_BYTES = 4096
_WOULD = {True: "yes", False: "no", None: "?"}


def show_counts(counts: list[CountedReason], *, as_json: bool, as_csv: bool = False) -> None:
    """Print how many letters are open for each reason, and how many of them would apply now."""
    if as_json:
        output.print_json({"reasons": counts, "total": sum(line.count for line in counts)})
    elif as_csv:
        sheet = output.Csv(("reason", "count", "oldest", "newest", "looked_at", "would_apply", "meaning"))
        for line in counts:
            sheet.add(line)
        sheet.end()
    elif not counts:
        output.print_line("No open dead letters.")
    else:
        rows = [(c.reason, c.count, _would(c), output.when(c.oldest), output.when(c.newest), c.meaning) for c in counts]
        columns = ("reason", "count", "would apply now", "oldest", "newest", "meaning")
        output.print_table("Open dead letters", columns, rows, spare=("newest", "oldest", "meaning", "would apply now"))
        output.print_note(
            "To list them: levelsync dead-letters list --reason REASON. To send them again: replay. To close: discard"
        )


def show_page(page: SeenPage, *, as_json: bool) -> None:
    """Print a page of letters, and how to get the next page."""
    if as_json:
        output.print_json({"dead_letters": [seen.as_dict() for seen in page.lines], "cursor": page.next})
        return
    columns = ("id", "first seen", "record", "bytes", "tries", "state", "would apply", "reason", "detail")
    spare = ("bytes", "tries", "first seen", "detail", "would apply", "state")
    output.print_table("Dead letters, newest first", columns, map(_row, page.lines), spare)
    print_next_page(page)


def print_next_page(page: SeenPage) -> None:
    """Print how to get the next page, if there may be one."""
    if page.next is not None:
        output.print_note(f"There may be more: --cursor {page.next}")


def sheet_of_letters() -> output.Csv:
    """Return a CSV sheet for the letters of pages."""
    return output.Csv(LETTER_COLUMNS, lambda seen: map(seen.as_dict().get, LETTER_COLUMNS))


def show_letter(seen: SeenLetter) -> None:
    """Print one letter with all of its fields."""
    letter = seen.letter
    came = output.when(letter.record_time) if letter.record_time else f"{letter.record_timestamp} ms"
    output.print_line(f"Dead letter {letter.id}: {letter.reason} ({seen.meaning})")
    output.print_line(f"  detail      {one_line(letter.detail) or '-'}")
    output.print_line(f"  record      {letter.topic}, partition {letter.partition}, offset {letter.offset}, {came}")
    output.print_line(f"  first seen  {output.when(letter.first_seen_at)}, attempts: {letter.attempts}")
    output.print_line(f"  state       {_state(seen)}")
    if letter.resolved_at is None:
        output.print_line(f"  would apply {_WOULD[seen.verdict.would_apply]}: {seen.verdict.why}")
    for header in letter.headers:
        name, content = header.get("key", header.get("key_base64")), header.get("value", header.get("base64"))
        output.print_line(f"  header      {one_line(f'{name}: {content}' if content is not None else f'{name}: null')}")
    _show_bytes("key", letter.key)
    _show_bytes("value", letter.value)


def _row(seen: Any) -> tuple[object, ...]:
    line = seen.line
    return (
        line.id,
        output.when(line.first_seen_at),
        f"{line.topic}-{line.partition}@{line.offset}",
        line.value_bytes,
        line.attempts,
        line.resolution or line.state,
        _WOULD[seen.verdict.would_apply],
        line.reason,
        line.detail,
    )


def _would(counted: CountedReason) -> str:
    of_all = counted.looked_at == counted.count
    return str(counted.would_apply) if of_all else f"{counted.would_apply} of the newest {counted.looked_at}"


def _state(seen: SeenLetter) -> str:
    letter = seen.letter
    by = f", requested by {letter.resolved_by}" if letter.resolved_by else ""
    if letter.resolved_at is not None:
        return f"{letter.resolution} at {output.when(letter.resolved_at)}{by}"
    return f"sent again at {output.when(letter.replayed_at)}{by}" if letter.replayed_at is not None else "open"


def _show_bytes(name: str, content: bytes | None) -> None:
    from service.dead_letters.read import as_text

    text = as_text(content)
    if content is None:
        output.print_line(f"  {name:<11} null")
    elif text is not None:
        output.print_line(f"  {name:<11} {text}")
    else:
        output.print_line(f"  {name:<11} {len(content)} bytes, not text:")
        output.print_line(hex_dump(content[:_HEX_BYTES]))
        if len(content) > _HEX_BYTES:
            output.print_line(f"  … --json prints all {len(content)} bytes")


def hex_dump(content: bytes) -> str:
    """Return bytes as lines of offset, hexadecimal and ASCII, sixteen bytes on each line."""
    lines = []
    for start in range(0, len(content), 16):
        part = content[start : start + 16]
        shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"  {start:08x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)
