"""Law 2: what an application declares by a sync stands, whatever was still on its way then."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import ProgressLicenseSyncService
from tests.support.applier import LAWS, SAMPLE_USERS, fresh
from tests.support.model import ADVANCED, LEVELED_UP, Meant, Model, Pair
from tests.support.records import MAXIMUM
from tests.support.tables import assert_equal_to

_PAIR: Pair = (1, "PLAYER")
_SIDES = {LEVELED_UP: "progress_to_license", ADVANCED: "license_to_progress"}
_WRITE = {
    LEVELED_UP: """
        INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', :level)
            ON CONFLICT (student_id, specialization_id) DO UPDATE SET current_level = excluded.current_level
    """,
    ADVANCED: """
        INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
        VALUES (1, 'PLAYER', :level, :level, now())
            ON CONFLICT (user_id, specialization_type) DO UPDATE SET current_level = excluded.current_level
    """,
}
_FENCE = text("SELECT decided_at FROM levelsync.fences WHERE user_id = 1 AND specialization = 'PLAYER'")
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("raise"), st.sampled_from(sorted(_SIDES)), st.integers(1, 8)),
        st.tuples(st.just("declare"), st.sampled_from(sorted(_SIDES)), st.integers(1, 8)),
        st.tuples(st.just("deliver"), st.just(""), st.integers(0, 100)),
    ),
    max_size=12,
)


@LAWS
@given(steps=_steps)
async def test_events_from_before_a_declaration_never_raise_the_pair(
    engine: AsyncEngine, steps: list[tuple[str, str, int]]
) -> None:
    """The application raises a side and publishes it, or sets a side and declares it; events come in any order."""
    partitions, expected, service = (
        await fresh(engine),
        Model(MAXIMUM, SAMPLE_USERS),
        ProgressLicenseSyncService(engine),
    )
    on_their_way: list[Meant] = []
    for number, (step, kind, level) in enumerate([*steps, *[("deliver", "", 0)] * len(steps)]):
        if step == "deliver":
            if on_their_way:
                meant = on_their_way.pop(level % len(on_their_way))
                await partitions.apply(meant.kind, partitions.records([meant]))
                expected.apply(meant)
            continue
        rows = expected.progress if kind == LEVELED_UP else expected.licenses
        if step == "raise" and level <= rows.get(_PAIR, 0):
            continue
        rows[_PAIR] = level
        async with engine.begin() as conn:
            await conn.execute(text(_WRITE[kind]), {"level": level})
        if step == "raise":
            on_their_way.append(Meant(kind, 1, "PLAYER", level, datetime.now(UTC), "/test", f"e{number}"))
            continue
        await service.sync_pair(1, "PLAYER", _SIDES[kind])  # type: ignore[arg-type]
        async with engine.connect() as conn:
            decided_at = (await conn.execute(_FENCE)).scalar_one()
        expected.sync(_PAIR, _SIDES[kind], decided_at, f"sync {_SIDES[kind]}")
    await assert_equal_to(expected, engine)
