"""Dead letters as the commands print them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from service.cli import output
from service.core.names import one_line
from service.core.sheet import LETTER_COLUMNS

if TYPE_CHECKING:
    from service.admin.letters import CountedReason, SeenLetter, SeenPage

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
        output.say("No open dead letters.")
    else:
        rows = [(c.reason, c.count, _would(c), when(c.oldest), when(c.newest), c.meaning) for c in counts]
        columns = ("reason", "count", "would apply now", "oldest", "newest", "meaning")
        output.print_table("Open dead letters", columns, rows, spare=("newest", "oldest", "meaning", "would apply now"))
        output.remark(
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
    say_next_page(page)


def say_next_page(page: SeenPage) -> None:
    """Print how to get the next page, if there may be one."""
    if page.next is not None:
        output.remark(f"There may be more: --cursor {page.next}")


def sheet_of_letters() -> output.Csv:
    """Return a CSV sheet for the letters of pages."""
    return output.Csv(LETTER_COLUMNS, lambda seen: map(seen.as_dict().get, LETTER_COLUMNS))


def show_letter(seen: SeenLetter) -> None:
    """Print one letter with all of its fields."""
    letter = seen.letter
    came = when(letter.record_time) if letter.record_time else f"{letter.record_timestamp} ms"
    output.say(f"Dead letter {letter.id}: {letter.reason} ({seen.meaning})")
    output.say(f"  detail      {one_line(letter.detail) or '-'}")
    output.say(f"  record      {letter.topic}, partition {letter.partition}, offset {letter.offset}, {came}")
    output.say(f"  first seen  {when(letter.first_seen_at)}, attempts: {letter.attempts}")
    output.say(f"  state       {_state(seen)}")
    if letter.resolved_at is None:
        output.say(f"  would apply {_WOULD[seen.verdict.would_apply]}: {seen.verdict.why}")
    for header in letter.headers:
        name, content = header.get("key", header.get("key_base64")), header.get("value", header.get("base64"))
        output.say(f"  header      {one_line(f'{name}: {content}' if content is not None else f'{name}: null')}")
    _show_bytes("key", letter.key)
    _show_bytes("value", letter.value)


def _row(seen: Any) -> tuple[object, ...]:
    line = seen.line
    return (
        line.id,
        when(line.first_seen_at),
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
        return f"{letter.resolution} at {when(letter.resolved_at)}{by}"
    return f"sent again at {when(letter.replayed_at)}{by}" if letter.replayed_at is not None else "open"


def _show_bytes(name: str, content: bytes | None) -> None:
    from service.dead_letters.read import as_text

    text = as_text(content)
    if content is None:
        output.say(f"  {name:<11} null")
    elif text is not None:
        output.say(f"  {name:<11} {text}")
    else:
        output.say(f"  {name:<11} {len(content)} bytes, not text:")
        output.say(hex_dump(content[:_HEX_BYTES]))
        if len(content) > _HEX_BYTES:
            output.say(f"  … --json prints all {len(content)} bytes")


def hex_dump(content: bytes) -> str:
    """Return bytes as lines of offset, hexadecimal and ASCII, sixteen bytes on each line."""
    lines = []
    for start in range(0, len(content), 16):
        part = content[start : start + 16]
        shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"  {start:08x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def when(moment: datetime | None) -> str:
    """Return a time in UTC, to the second; a dash for None."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"
