"""`levelsync dead-letters`: what could not be applied, and why."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, output
from service.cli.context import AsJson
from service.cli.exits import SaidNo, WrongUse

if TYPE_CHECKING:
    from service.dead_letters import Letter, LetterLine, ReasonCount
    from service.settings import Settings

app = typer.Typer(help="Records that can never apply, kept whole.", no_args_is_help=True)

_HEX_BYTES = 4096


@app.command("list")
def list_letters(
    reason: Annotated[str | None, typer.Option(help="List the letters of this reason, newest first.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Letters a page.")] = 100,
    cursor: Annotated[int | None, typer.Option(help="Go on after this letter: the last page's cursor.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count the open dead letters by reason; with --reason, list them."""
    settings = context.settings()
    if reason is None:
        _show_counts(asyncio.run(_count(settings)), as_json=as_json)
        return
    _check_reason(reason)
    lines = asyncio.run(_list(settings, reason, cursor, limit))
    _show_lines(lines, lines[-1].id if len(lines) == limit else None, as_json=as_json)


def _check_reason(reason: str) -> None:
    from service.dead_letters import MEANINGS

    if reason not in MEANINGS:
        raise WrongUse(f"there is no reason {reason}; the reasons are {', '.join(MEANINGS)}")


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="A letter's id, from the list.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: where it came from, why it is here, its bytes."""
    letter = asyncio.run(_find(context.settings(), letter_id))
    if letter is None:
        raise SaidNo(f"there is no dead letter {letter_id}")
    if as_json:
        output.print_json(as_document(letter))
    else:
        _show_letter(letter)


async def _count(settings: Settings) -> list[ReasonCount]:
    from service import dead_letters
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await dead_letters.count_by_reason(conn)


async def _list(settings: Settings, reason: str, cursor: int | None, limit: int) -> list[LetterLine]:
    from service import dead_letters
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await dead_letters.list_open(conn, reason=reason, before=cursor, limit=limit)


async def _find(settings: Settings, letter_id: int) -> Letter | None:
    from service import dead_letters
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await dead_letters.find(conn, letter_id)


def as_document(letter: Letter) -> dict[str, Any]:
    """Give a letter as JSON has it: key and value as text, or as base64 where they are none."""
    document = dataclasses.asdict(letter)
    for name in ("key", "value"):
        content = document.pop(name)
        text = _text(content)
        document[name] = text
        if content is not None and text is None:
            document[f"{name}_base64"] = base64.b64encode(content).decode()
    return document | {"meaning": _meaning(letter.reason)}


def _show_counts(counts: list[ReasonCount], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"reasons": counts, "total": sum(line.count for line in counts)})
    elif not counts:
        output.say("No open dead letters.")
    else:
        rows = [(c.reason, c.count, _when(c.oldest), _when(c.newest), _meaning(c.reason)) for c in counts]
        output.print_table("Open dead letters", ("reason", "count", "oldest", "newest", "meaning"), rows)


def _show_lines(lines: list[LetterLine], cursor: int | None, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"dead_letters": lines, "cursor": cursor})
        return
    rows = [
        (
            line.id,
            _when(line.first_seen_at),
            f"{line.topic}-{line.partition}@{line.offset}",
            line.value_bytes,
            line.detail,
        )
        for line in lines
    ]
    output.print_table("Open dead letters, newest first", ("id", "first seen", "record", "bytes", "detail"), rows)
    if cursor is not None:
        output.remark(f"There may be more: --cursor {cursor}")


def _show_letter(letter: Letter) -> None:
    came = datetime.fromtimestamp(letter.record_timestamp / 1000, UTC)
    output.say(f"Dead letter {letter.id}: {letter.reason} ({_meaning(letter.reason)})")
    output.say(f"  detail      {letter.detail or '-'}")
    output.say(f"  record      {letter.topic}, partition {letter.partition}, offset {letter.offset}, {_when(came)}")
    output.say(f"  first seen  {_when(letter.first_seen_at)}, attempts: {letter.attempts}")
    state = f"{letter.resolution} at {_when(letter.resolved_at)}" if letter.resolved_at else "open"
    output.say(f"  state       {state}")
    for header in letter.headers:
        name, content = header.get("key", header.get("key_base64")), header.get("value", header.get("base64"))
        output.say(f"  header      {name}: {content if content is not None else 'null'}")
    _show_bytes("key", letter.key)
    _show_bytes("value", letter.value)


def _show_bytes(name: str, content: bytes | None) -> None:
    text = _text(content)
    if content is None:
        output.say(f"  {name:<11} null")
    elif text is not None:
        output.say(f"  {name:<11} {text}")
    else:
        output.say(f"  {name:<11} {len(content)} bytes, not text:")
        output.say(hex_dump(content[:_HEX_BYTES]))
        if len(content) > _HEX_BYTES:
            output.say(f"  … the rest of {len(content)} bytes with --json")


def hex_dump(content: bytes) -> str:
    """Give bytes as offset, hexadecimal and ASCII, sixteen a line."""
    lines = []
    for start in range(0, len(content), 16):
        part = content[start : start + 16]
        shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"  {start:08x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def _text(content: bytes | None) -> str | None:
    """Give the bytes as text that a terminal can take, else None."""
    try:
        text = content.decode() if content is not None else None
    except UnicodeDecodeError:
        return None
    printable = text is not None and all(char.isprintable() or char in "\n\r\t" for char in text)
    return text if printable else None


def _meaning(reason: str) -> str | None:
    from service.dead_letters import MEANINGS

    return MEANINGS.get(reason)


def _when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"
