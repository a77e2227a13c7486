"""levelsync and its example hooks beside the application, in each of five states of its history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from alembic import command

from events import LicenseAdvanced, ProgressLeveledUp
from service.process.runtime import Service
from service.settings import Settings
from service.store.migrate import alembic_config, migrate
from tests.support import application, preloaded, topics
from tests.support.api import serving
from tests.support.process import environment, levelsync, serve_environment
from tests.support.repository import ROOT
from tests.support.states import ADMIN, FIRST_STUDENT, INSTRUCTOR, SPORT_DIRECTORS, STATES, STUDENT, USERS, State
from tests.support.tokens import client
from tests.support.waiting import eventually

ROLES = frozenset({"apply", "reconcile", "relay", "api"})
OUR_CONSTRAINTS = ("uq_specialization_progress_user_spec", "uq_user_licenses_user_specialization")
Levels = dict[tuple[int, str], int]
_PROGRESS = "SELECT student_id, specialization_id, current_level FROM specialization_progress"
_LICENSES = "SELECT user_id, specialization_type, current_level FROM user_licenses"


async def test_migrate_and_a_downgrade_change_only_the_constraints(
    live_url: str, settings: Settings, state: State
) -> None:
    """A second run changes nothing, and the application's own Alembic history stays."""
    history = await application.rows(live_url, "SELECT version_num FROM public.alembic_version")
    before = (await application.structure(live_url)).splitlines()
    await asyncio.to_thread(migrate, settings)
    after = await application.state(live_url), await application.structure(live_url, "levelsync")
    await asyncio.to_thread(migrate, settings)
    assert (await application.state(live_url), await application.structure(live_url, "levelsync")) == after
    lines = set(after[0][0].splitlines())
    assert set(before) - lines == set()
    assert [line for line in lines - set(before) if not _ours(line)] == []
    assert await application.rows(live_url, "SELECT version_num FROM public.alembic_version") == history
    assert await application.value(live_url, "SELECT count(*) FROM levelsync.removed_rows") == state.removed

    levels = await application.rows(live_url, _PROGRESS), await application.rows(live_url, _LICENSES)
    await asyncio.to_thread(partial(command.downgrade, alembic_config(settings), "base"))
    assert [line for line in (await application.structure(live_url)).splitlines() if not _ours(line)] == [
        line for line in before if not _ours(line)
    ]
    assert (await application.rows(live_url, _PROGRESS), await application.rows(live_url, _LICENSES)) == levels
    if state.removed:
        assert await application.value(live_url, "SELECT count(*) FROM levelsync.removed_rows") == state.removed
    await asyncio.to_thread(migrate, settings)


async def test_the_endpoints_take_the_application_s_own_tokens(migrated: str, settings: Settings, state: State) -> None:
    """The application's clients change only their base URL, and each role may do what its name says."""
    name = state.specializations[0]
    async with serving(settings) as url, client(url, ADMIN) as admin:
        listed = await admin.get("/desync-issues", params={"specialization": name, "limit": 1000})
        assert listed.status_code == 200, listed.text
        mismatched = [issue["user_id"] for issue in listed.json() if issue["issue_type"] == "mismatched"]
        assert mismatched == [20, 40, 60, 80, 100]
        assert {issue["user_email"] for issue in listed.json()} >= {"student20@lfa.example", "student101@lfa.example"}
        one = await admin.post("/user/20", json={"specialization": name, "direction": "progress_to_license"})
        assert (one.status_code, one.json()["action"], one.json()["new_license_level"]) == (200, "updated", 3), one.text
        every = await admin.post("/user/40/all", json={"direction": "license_to_progress"})
        assert (every.status_code, every.json()["success"]) == (200, True), every.text
        assert set(every.json()["results"]) == set(state.specializations)
        created = await admin.post("/user/101/all", json={"direction": "license_to_progress"})
        assert created.json()["success"], created.text
        await _check_roles(url, state)
    rows = "SELECT count(*) FROM specialization_progress WHERE student_id = 101"
    assert await application.value(migrated, rows) == len(state.specializations)


async def _check_roles(url: str, state: State) -> None:
    """Check what each role may do. An enum in upper case is read. The newest roles have no rights here."""

    async def statuses(email: str) -> tuple[int, int]:
        async with client(url, email) as somebody:
            listed = await somebody.get("/desync-issues")
            return listed.status_code, (await somebody.post("/all", json={"dry_run": "false"})).status_code

    assert await statuses(ADMIN) == (200, 422)  # the role is allowed, but the request is invalid
    assert await statuses(INSTRUCTOR) == (200, 403)
    assert await statuses(STUDENT) == (403, 403)
    assert await statuses("nobody@lfa.example") == (401, 401)
    for director in SPORT_DIRECTORS if state.letter == "E" else ():
        assert await statuses(director) == (403, 403)


@pytest.mark.usefixtures("topics")
async def test_a_day_beside_the_application(migrated: str, settings: Settings, state: State) -> None:
    """A thousand events, `doctor`, a dry run and an executed run, with the admin's token."""
    progress, licenses = await _levels(migrated, _PROGRESS), await _levels(migrated, _LICENSES)
    events = list(_thousand_events(state))
    rises = _apply(events, progress, licenses)
    async with Service(settings, ROLES) as service, client(service.http_url, ADMIN) as admin:
        await asyncio.wait_for(service.ready(), 30)
        await topics.publish(settings.kafka_bootstrap_servers, [event.to_kafka() for event in events])

        async def all_applied() -> bool:
            applied = "SELECT sum(next_offset) = 1000 FROM levelsync.applied_offsets"
            return bool(await application.value(migrated, applied))

        await eventually(all_applied)
        assert await application.rows(migrated, "SELECT reason, detail FROM levelsync.dead_letters") == []
        assert await _levels(migrated, _PROGRESS) == progress
        assert await _levels(migrated, _LICENSES) == licenses
        assert await application.value(migrated, "SELECT count(*) FROM license_progressions") == rises

        assert await _not_passed(settings, service) == []

        dry = await _run(admin, dry_run=True)
        assert dry["total_issues"] == _differences(progress, licenses, state) > 0
        assert await _levels(migrated, _PROGRESS) == progress
        done = await _run(admin, dry_run=False)
        assert (done["synced_count"], done["failed_count"]) == (dry["total_issues"], 0)
        assert (await _run(admin, dry_run=True))["total_issues"] == 0
        counts = (await admin.get(f"/runs/{done['run_id']}")).json()["counts"]
        assert counts["needs_decision"] == state.needs_decision
        assert counts["unconfirmed"] == counts["changed_meanwhile"] == 0
    for name in state.specializations:
        level = await application.rows(migrated, f"{_PROGRESS} WHERE specialization_id = '{name}' ORDER BY 1")
        assert level == await application.rows(migrated, f"{_LICENSES} WHERE specialization_type = '{name}' ORDER BY 1")


def _ours(line: str) -> bool:
    return any(name in line for name in OUR_CONSTRAINTS)


async def _levels(url: str, query: str) -> Levels:
    return {(user, name): level for user, name, level in await application.rows(url, query)}


def _thousand_events(state: State) -> Iterable[ProgressLeveledUp | LicenseAdvanced]:
    """Yield both kinds for all students and specializations in turn. Many come too late to raise a level."""
    for number in range(1000):
        user = FIRST_STUDENT + number % (USERS - FIRST_STUDENT + 1)
        name = state.specializations[number % len(state.specializations)]
        to_level = 1 + number * 7 % 3
        if number % 2:
            yield ProgressLeveledUp(user_id=user, specialization=name, to_level=to_level, source="/app/progress")
        else:
            yield LicenseAdvanced(user_id=user, specialization=name.lower(), to_level=to_level, source="/app/licenses")


def _apply(events: Iterable[Any], progress: Levels, licenses: Levels) -> int:
    """Raise the levels as the events do; return how many licenses rose."""
    rises = 0
    for event in events:
        pair = (event.user_id, event.specialization.upper())
        target = licenses if isinstance(event, ProgressLeveledUp) else progress
        if event.to_level > target.get(pair, 0):
            target[pair] = event.to_level
            rises += target is licenses
    return rises


def _differences(progress: Levels, licenses: Levels, state: State) -> int:
    pairs = {pair for pair in progress.keys() | licenses.keys() if pair[1] in state.specializations}
    return sum(progress.get(pair) != licenses.get(pair) for pair in pairs)


async def _not_passed(settings: Settings, service: Service) -> list[dict[str, str]]:
    """Return the checks of `levelsync doctor` that do not pass beside the running service."""
    env = environment(settings, HTTP_PORT=service.http_url.rpartition(":")[2])
    run = await asyncio.to_thread(partial(levelsync, "doctor", "--json", env=env))
    return [check for check in json.loads(run.stdout)["checks"] if check["verdict"] != "PASS"]


async def _run(admin: Any, *, dry_run: bool) -> dict[str, Any]:
    answer = await admin.post("/all", json={"direction": "highest", "dry_run": dry_run})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


_LEVELS = """
    SELECT p.current_level, l.current_level FROM specialization_progress p
      JOIN user_licenses l ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
     WHERE p.student_id = 42 AND p.specialization_id = '{}'
"""


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("state", [STATES[0], STATES[-1]], ids=str)
async def test_the_example_raises_relays_and_demotes(migrated: str, settings: Settings, state: State) -> None:
    """The events are applied after the demotion, and the demotion stays."""
    player, coach = state.specializations[0], state.specializations[-2]
    env = serve_environment(settings) | {"PYTHONPATH": str(ROOT)}
    command = ("examples/application_hooks.py", "42", player, coach)
    done = await asyncio.to_thread(preloaded.run, *command, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 events relayed\n")
    assert await application.rows(migrated, _LEVELS.format(coach)) == [(1, 2)]
    async with Service(settings, frozenset({"apply"})) as service:
        await asyncio.wait_for(service.ready(), 30)

        async def applied() -> bool:
            return bool(await application.value(migrated, "SELECT sum(next_offset) = 2 FROM levelsync.applied_offsets"))

        await eventually(applied)
    assert await application.rows(migrated, _LEVELS.format(coach)) == [(2, 2)]
    assert await application.rows(migrated, _LEVELS.format(player)) == [(5, 5)]
    assert await application.value(migrated, "SELECT count(*) FROM application_outbox") == 0
