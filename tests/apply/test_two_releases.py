"""The previous release and this one apply to the same pairs, on this release's schema, as during a rollout."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support.applier import Events, sync
from tests.support.load import new_seed
from tests.support.model import ADVANCED, LEVELED_UP, Meant
from tests.support.records import START
from tests.support.repository import ROOT
from tests.support.tables import add_rows, execute, read, steps

PREVIOUS = "58c8136"
RISING, FENCED, LOWERED = range(1, 61), range(61, 121), range(121, 181)
"""Users whose pairs only rise, whose pairs were lowered before, and whose pairs are lowered during the test."""
BATCHES, RECORDS = 40, 60
_NAMES = ("PLAYER", "Player", "player")
_FENCES = """
    INSERT INTO levelsync.fences (user_id, specialization, decided_at, level)
    SELECT id, 'PLAYER', '2026-06-01Z', 2 FROM generate_series(61, 120) AS id
"""
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


Work = tuple[list[tuple[str, list[Meant]]], list[int]]
"""What one release does: batches of one kind each, and users to sync."""


@pytest.mark.soak
async def test_two_releases_end_as_one(events: Events, engine: AsyncEngine, settings: Settings, tmp_path: Path) -> None:
    """Every rise counts, no event passes a fence, each license's history is a chain, and there are no deadlocks."""
    rng = Random(new_seed())  # noqa: S311 - a load, not a secret
    await _put_rows(engine)
    before, after = _work(rng, "old"), _work(rng, "new")
    previous = asyncio.create_task(asyncio.to_thread(_run_previous, _unpacked(tmp_path), settings, before))
    await asyncio.gather(previous, _run_this(events, engine, after))
    await engine.dispose()  # a session reports its deadlocks when it ends
    deadlocks = (await read(engine, _DEADLOCKS))[0][0]
    print(f"deadlocks: {deadlocks}; the previous release tried again: {previous.result()['retries']}")  # noqa: T201
    await _assert_ended(engine, [*before[0], *after[0]])
    assert deadlocks == 0


async def _put_rows(engine: AsyncEngine) -> None:
    """Create licenses in any spelling, and the fences of the decisions that lowered `FENCED` to 2."""
    progress = {(user, "PLAYER"): 2 for user in (*FENCED, *LOWERED)}
    licenses = {(user, _NAMES[user % 3]): 5 if user in LOWERED else 2 for user in (*RISING, *FENCED, *LOWERED)}
    await add_rows(engine, progress=progress, licenses=licenses)
    await execute(engine, _FENCES)


def _work(rng: Random, name: str) -> Work:
    """Create events older than every decision. Only rising users' progress advances, so that syncs can believe it."""
    batches = []
    for number in range(BATCHES):
        kind = rng.choice((LEVELED_UP, LEVELED_UP, ADVANCED))
        users = RISING if kind == ADVANCED else range(1, 181)
        batches.append((kind, [_event(rng, kind, users, f"{name}-{number}-{index}") for index in range(RECORDS)]))
    return batches, rng.sample(LOWERED, len(LOWERED))


def _event(rng: Random, kind: str, users: Sequence[int], name: str) -> Meant:
    at = START + timedelta(minutes=rng.randrange(500))
    return Meant(kind, rng.choice(users), rng.choice(_NAMES), rng.randint(1, 8), at, "/test", name)


def _unpacked(folder: Path) -> Path:
    """Return a folder with the previous release's code, from this repository's history."""
    command = ["git", "-C", str(ROOT), "archive", PREVIOUS, "service", "events", "tests/__init__.py", "tests/laws"]
    packed = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 - our own repository
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _run_previous(folder: Path, settings: Settings, work: Work) -> Any:
    program = str(ROOT / "tests" / "support" / "previous_release.py")
    batches = [
        (kind, [(one.user, one.specialization, one.to_level, one.at.isoformat(), one.id) for one in meant])
        for kind, meant in work[0]
    ]
    given = json.dumps({"batches": batches, "syncs": [(user, "progress_to_license") for user in work[1]]})
    command = [sys.executable, program, settings.database_url.get_secret_value()]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(  # noqa: S603 - our own program
        command, input=given, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert Path(answer["file"]).is_relative_to(folder)
    return answer


async def _run_this(events: Events, engine: AsyncEngine, work: Work) -> None:
    """Do what the previous release does: apply both kinds and run the syncs at once."""

    async def apply_all(kind: str) -> None:
        for of, meant in work[0]:
            if of == kind:
                await events.apply(*meant, attempts=50)

    async def sync_all() -> None:
        for user in work[1]:
            assert not (await sync(engine, user, "progress_to_license")).failed

    await asyncio.gather(apply_all(LEVELED_UP), apply_all(ADVANCED), sync_all())


async def _assert_ended(engine: AsyncEngine, batches: Sequence[tuple[str, list[Meant]]]) -> None:
    rises = [one for kind, meant in batches for one in meant if kind == LEVELED_UP]
    highest = {user: max([2, *(one.to_level for one in rises if one.user == user)]) for user in RISING}
    wanted = highest | dict.fromkeys((*FENCED, *LOWERED), 2)
    found = await read(engine, "SELECT user_id, current_level FROM user_licenses")
    assert len(found) == len(wanted)
    assert {row[0]: row[1] for row in found} == wanted
    tops = {user: 5 if user in LOWERED else 2 for user in wanted}
    for user, _, from_level, to_level in await steps(engine):
        assert tops[user] == from_level, f"the history of user {user} has a gap"
        tops[user] = to_level
    assert tops == wanted
    reasons = await read(engine, "SELECT advancement_reason FROM license_progressions WHERE to_level > from_level")
    assert len(reasons) == len(set(reasons)), "an event raised a license twice"
