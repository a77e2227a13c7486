"""Dead letters for staff: calls are bounded, done once, and recorded."""

from __future__ import annotations

import pytest

from service.admin import letters
from service.admin.letters import Handled, Selection
from service.core.sheet import LETTER_COLUMNS
from service.settings import Settings
from service.web.api.dead_letter_models import DeadLetterLine
from tests.support.letters import NOBODY, Setup
from tests.support.tokens import somebody

ADMIN = somebody("admin", "1")
AUDIT = "SELECT subject, action, outcome, detail FROM levelsync.admin_actions ORDER BY id"
UNKNOWN = Selection(reason="unknown_user")


async def test_a_letter_of_a_list_has_the_columns_of_its_sheet(setup: Setup, settings: Settings) -> None:
    """The API's model has them too."""
    await setup.letters_of(NOBODY)
    (seen,) = (await letters.list_letters(setup.engine, settings, ADMIN)).lines
    assert tuple(seen.as_dict()) == LETTER_COLUMNS == tuple(DeadLetterLine.model_fields)


async def test_a_replay_and_a_discard_are_in_the_audit_log(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    await setup.send(Selection(ids=(3,)))
    done = await letters.replay_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False)
    assert done == Handled(dry_run=False, selected=2, on_its_way=1, unsendable=0, not_open=0, left=0)
    assert await setup.rows(AUDIT) == [("1", "replay_letters", "done", "2 letters: 1 to 2")]
    again = await letters.replay_letters(setup.engine, ADMIN, Selection(ids=(1, 99)), dry_run=False)
    assert (again.selected, again.on_its_way, again.not_open) == (0, 1, 1)
    assert len(await setup.on_their_way()) == 3

    await setup.letters_of(NOBODY)
    assert (await letters.discard_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False)).selected == 1
    found = await setup.rows(
        "SELECT id, resolution, resolved_by FROM levelsync.dead_letters WHERE resolution IS NOT NULL"
    )
    assert found == [(4, "discarded", "1")]
    assert (await setup.rows(AUDIT))[-1] == ("1", "discard_letters", "done", "letter 4")


async def test_a_call_is_bounded_and_says_what_is_left(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.letters.MAX_LETTERS", 2)
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    handled = [await letters.replay_letters(setup.engine, ADMIN, UNKNOWN, dry_run=False) for _ in range(3)]
    assert [(one.selected, one.left) for one in handled] == [(2, 1), (1, 0), (0, 0)]
