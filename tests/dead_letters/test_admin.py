"""Dead letters for staff: calls are counted first, done once, and recorded."""

from __future__ import annotations

import pytest

from service.admin import letters
from service.admin.identity import Forbidden, NoSuch
from service.admin.letters import Handled, Selection
from service.core.sheet import LETTER_COLUMNS
from service.settings import Settings
from service.web.api.dead_letter_models import DeadLetterLine
from tests.support.letters import NOBODY, Setup
from tests.support.tokens import somebody

ADMIN, INSTRUCTOR, STUDENT = somebody("admin", "1"), somebody("instructor", "2"), somebody("student", "3")
AUDIT = "SELECT subject, action, outcome, detail FROM levelsync.admin_actions ORDER BY id"
UNKNOWN = Selection(reason="unknown_user")


async def test_a_letter_of_a_list_has_the_columns_of_its_sheet(setup: Setup, settings: Settings) -> None:
    """The API's model has them too."""
    await setup.letters_of(NOBODY)
    (seen,) = (await letters.list_letters(setup.engine, settings, ADMIN)).lines
    assert tuple(seen.as_dict()) == LETTER_COLUMNS == tuple(DeadLetterLine.model_fields)


async def test_a_dry_run_says_how_many_and_does_nothing(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1)
    would = Handled(dry_run=True, selected=2, on_its_way=0, unsendable=0, not_open=0, left=0)
    assert await letters.replay_letters(setup.engine, ADMIN, UNKNOWN) == would
    assert await letters.discard_letters(setup.engine, ADMIN, UNKNOWN) == would
    assert await setup.on_their_way() == []
    assert {row[1] for row in await setup.letters()} == {"open"}
    assert await setup.rows(AUDIT) == []


async def test_a_replay_is_in_the_audit_log(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    await setup.send(Selection(ids=(3,)))
    done = await letters.replay_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False)
    assert done == Handled(dry_run=False, selected=2, on_its_way=1, unsendable=0, not_open=0, left=0)
    assert await setup.rows(AUDIT) == [("1", "replay_letters", "done", "2 letters: 1 to 2")]
    again = await letters.replay_letters(setup.engine, ADMIN, Selection(ids=(1, 99)), dry_run=False)
    assert (again.selected, again.on_its_way, again.not_open) == (0, 1, 1)
    assert len(await setup.on_their_way()) == 3


async def test_a_discard_names_its_caller(setup: Setup) -> None:
    await setup.letters_of(NOBODY)
    assert (await letters.discard_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False)).selected == 1
    assert await setup.rows("SELECT resolution, resolved_by FROM levelsync.dead_letters") == [("discarded", "1")]
    assert await setup.rows(AUDIT) == [("1", "discard_letters", "done", "letter 1")]


async def test_a_call_is_bounded_and_says_what_is_left(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.letters.MAX_LETTERS", 2)
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    handled = [await letters.replay_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False) for _ in range(3)]
    assert [(one.selected, one.left) for one in handled] == [(2, 1), (1, 0), (0, 0)]


async def test_a_role_without_the_right_is_refused_and_recorded(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(NOBODY)
    for dry_run in (True, False):
        with pytest.raises(Forbidden):
            await letters.replay_letters(setup.engine, INSTRUCTOR, UNKNOWN, dry_run=dry_run)
        with pytest.raises(Forbidden):
            await letters.discard_letters(setup.engine, INSTRUCTOR, UNKNOWN, dry_run=dry_run)
    with pytest.raises(Forbidden):
        await letters.count_letters(setup.engine, settings, STUDENT)
    assert [row[2] for row in await setup.rows(AUDIT)] == ["refused"] * 5
    assert await setup.on_their_way() == []


async def test_letters_are_counted_listed_and_found_with_what_would_apply(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.make_user()
    (counted,) = await letters.count_letters(setup.engine, settings, INSTRUCTOR)
    assert (counted.reason, counted.count, counted.looked_at, counted.would_apply) == ("unknown_user", 2, 2, 1)
    page = await letters.list_letters(setup.engine, settings, INSTRUCTOR, UNKNOWN, limit=1)
    assert [(seen.line.id, seen.verdict.would_apply) for seen in page.lines] == [(2, False)]
    page = await letters.list_letters(setup.engine, settings, INSTRUCTOR, UNKNOWN, before=page.next, limit=1)
    assert [(seen.line.id, seen.verdict.would_apply) for seen in page.lines] == [(1, True)]
    assert page.next is None
    found = await letters.find_letter(setup.engine, settings, INSTRUCTOR, 1)
    assert (found.letter.key, found.verdict.why) == (b"500", "its user exists now")
    with pytest.raises(NoSuch):
        await letters.find_letter(setup.engine, settings, INSTRUCTOR, 99)
