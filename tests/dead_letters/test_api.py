"""Dead letters over HTTP."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import httpx
import pytest

from events import LICENSE_ADVANCED_TOPIC as ADVANCED
from events import PROGRESS_LEVELED_UP_TOPIC as LEVELED_UP
from events import RECONCILE_CHUNKS_TOPIC, RECONCILE_REQUESTED_TOPIC, Reason
from service.admin.letters import list_letters
from service.core.sheet import LETTER_COLUMNS
from service.settings import Settings
from service.web.api.dead_letter_models import DeadLetterLine, ReasonName, TopicName
from tests.api.conftest import admin, api_url, client
from tests.support.api import Client
from tests.support.letters import NOBODY, Setup
from tests.support.tokens import somebody

__all__ = ["admin", "api_url", "client"]
REPLAY, DISCARD = "/dead-letters/replay", "/dead-letters/discard"
UNKNOWN = {"filter": {"reason": "unknown_user"}}
AUDIT = "SELECT role, outcome FROM levelsync.admin_actions ORDER BY id"


async def test_letters_are_counted_and_paged_with_what_would_apply_now(admin: httpx.AsyncClient, setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    await setup.make_user()
    (counted,) = (await admin.get("/dead-letters?group=reason")).json()
    assert (counted["reason"], counted["count"], counted["would_apply"]) == ("unknown_user", 3, 1)
    assert (await admin.get("/dead-letters?group=reason&user_id=1")).status_code == 422
    found: list[Any] = []
    link = "/dead-letters?reason=unknown_user&limit=2"
    for _ in range(3):
        answer = await admin.get(link)
        found += answer.json()
        if "next" not in answer.links:
            break
        link = "/dead-letters?" + answer.links["next"]["url"].partition("?")[2]
    assert [(letter["id"], letter["would_apply_now"]) for letter in found] == [(3, False), (2, False), (1, True)]
    assert (await admin.get("/dead-letters/1")).json()["would_apply_why"] == "its user exists now"
    assert (await admin.get("/dead-letters", params={"user_id": NOBODY})).json()[0]["id"] == 1
    assert (await admin.get("/dead-letters", params={"until": "2020-01-01T00:00:00Z"})).json() == []


async def test_a_letter_is_shown_whole(admin: httpx.AsyncClient, setup: Setup) -> None:
    (record,) = await setup.letters_of(NOBODY)
    await setup.read([replace(record, value=b"\xff\x00", key=None, offset=setup.next_offset())])
    text, binary = [(await admin.get(f"/dead-letters/{number}")).json() for number in (1, 2)]
    assert (text["key"], text["value"], text["value_base64"]) == ("500", record.value.decode(), None)
    assert (binary["key"], binary["value"]) == (None, None)
    assert base64.b64decode(binary["value_base64"]) == b"\xff\x00"
    assert (text["would_apply_now"], text["would_apply_why"]) == (False, "unknown_user: there is no user 500")
    assert (await admin.get("/dead-letters/99")).status_code == 404


async def test_nothing_is_written_unless_dry_run_is_false(admin: httpx.AsyncClient, setup: Setup) -> None:
    """What is written names its caller, and is in the audit log."""
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    would = {"dry_run": True, "selected": 3, "on_its_way": 0, "unsendable": 0, "not_open": 0, "left": 0}
    for body in (UNKNOWN, UNKNOWN | {"dry_run": True}, {"ids": [1, 2, 3]}, {"filter": {"all": True}}):
        for path in (REPLAY, DISCARD):
            assert (await admin.post(path, json=body)).json() == would
    assert await setup.on_their_way() == []
    assert {row[1] for row in await setup.letters()} == {"open"}
    assert await setup.rows(AUDIT) == []
    done = would | {"dry_run": False, "selected": 2}
    assert (await admin.post(REPLAY, json={"ids": [1, 2], "dry_run": False})).json() == done
    again = (await admin.post(REPLAY, json={"ids": [1, 99], "dry_run": False})).json()
    assert again == done | {"selected": 0, "on_its_way": 1, "not_open": 1}
    discarded = (await admin.post(DISCARD, json=UNKNOWN | {"dry_run": False})).json()
    assert discarded == done | {"selected": 1, "on_its_way": 2}
    assert len(await setup.on_their_way()) == 2
    closed = "SELECT id, resolution, resolved_by FROM levelsync.dead_letters WHERE resolved_at IS NOT NULL"
    assert await setup.rows(closed) == [(3, "discarded", "1")]
    assert await setup.rows("SELECT subject, action, outcome, detail FROM levelsync.admin_actions ORDER BY id") == [
        ("1", "replay_letters", "done", "2 letters: 1 to 2"),
        ("1", "replay_letters", "done", ""),
        ("1", "discard_letters", "done", "letter 3"),
    ]


async def test_calls_say_what_is_left(admin: httpx.AsyncClient, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.letters.MAX_LETTERS", 2)
    await setup.letters_of(NOBODY, NOBODY + 1, NOBODY + 2)
    handled = [(await admin.post(REPLAY, json=UNKNOWN | {"dry_run": False})).json() for _ in range(3)]
    assert [(one["selected"], one["left"]) for one in handled] == [(2, 1), (1, 0), (0, 0)]


async def test_a_letter_of_a_list_has_the_columns_of_its_sheet(setup: Setup, settings: Settings) -> None:
    await setup.letters_of(NOBODY)
    (seen,) = (await list_letters(setup.engine, settings, somebody("admin", "1"))).lines
    assert tuple(seen.as_dict()) == LETTER_COLUMNS == tuple(DeadLetterLine.model_fields)


INEXACT_BODIES: list[Any] = [
    *({}, None, []),
    *({"ids": ids} for ids in ([], [0], ["1"], [2**63], list(range(1, 1002)))),
    *({"ids": [1], "dry_run": dry_run} for dry_run in (None, "false", 0)),
    {"ids": [1], "filter": {"all": True}},
    *({"filter": given} for given in ({}, {"all": False}, {"all": True, "reason": "invalid"}, {"reason": "bored"})),
    *({"filter": given} for given in ({"topic": "a\0b"}, {"user_id": "1"}, {"state": "all"})),
    *({"filter": {"since": since}} for since in ("yesterday", 1_700_000_000, "2026-01-01T00:00:00")),
    {"filter": {"since": "0001-01-01T00:00:00+14:00"}},
]
INEXACT_QUERIES = [
    *(f"user_id={user}" for user in ("x", "-1", "1_0")),
    *("state=lost", "reason=x", "topic=x", "cursor=x", "cursor=WyJ4Il0", "since=2026-01-01", "since=1700000000"),
]


async def test_a_body_or_a_query_that_is_not_exact_is_refused(admin: httpx.AsyncClient, setup: Setup) -> None:
    await setup.letters_of(NOBODY)
    for body, path in product(INEXACT_BODIES, (REPLAY, DISCARD)):
        assert (await admin.post(path, json=body)).status_code == 422, body
    for query in INEXACT_QUERIES:
        assert (await admin.get(f"/dead-letters?{query}")).status_code == 422, query
    assert [row[1] for row in await setup.letters()] == ["open"]
    assert await setup.on_their_way() == []


async def test_an_instructor_reads_and_does_not_write(client: Client, setup: Setup) -> None:
    """A dry run is refused too, and every refusal of a known role is recorded."""
    await setup.letters_of(NOBODY)
    posts = [{"ids": [1]}, {"ids": [1], "dry_run": False}]
    expected = {"instructor": (200, 403), "student": (403, 403), None: (401, 401)}
    for role, (reads, writes) in expected.items():
        for path in ("/dead-letters", "/dead-letters?group=reason", "/dead-letters/1"):
            assert (await client(role).get(path)).status_code == reads, role
        for path, body in product((REPLAY, DISCARD), posts):
            assert (await client(role).post(path, json=body)).status_code == writes, role
    assert await setup.rows(AUDIT) == [("instructor", "refused")] * 4 + [("student", "refused")] * 7
    assert await setup.on_their_way() == []


def test_every_reason_and_every_topic_that_is_read_can_be_asked_for() -> None:
    """A new one would be missing from the documents."""
    assert set(get_args(ReasonName)) == {reason.value for reason in Reason}
    assert set(get_args(TopicName)) == {ADVANCED, LEVELED_UP, RECONCILE_CHUNKS_TOPIC, RECONCILE_REQUESTED_TOPIC}
