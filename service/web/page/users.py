"""The pages to find a user, to show them, and to sync their pairs."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from events import Direction
from service.admin import letters, users
from service.admin.identity import NoSuch
from service.admin.pairs import UserPair
from service.admin.users import UserView, find_users, read_user
from service.core.names import DIRECTIONS
from service.core.pair import PairAction, Side
from service.dead_letters.select import Selection
from service.sync import SyncResult
from service.web.page.visit import Visit, direction_in

_MAX_LETTERS = 20
_LONGEST_QUESTION = 320


@dataclass(frozen=True, slots=True)
class SyncPreview:
    """A preview of the sync of one pair: the levels before and after, or the reason why nothing is written."""

    pair: UserPair
    writes: bool
    after: dict[Side, int | None]
    text: str
    lowers: bool


async def find(visit: Visit) -> Response:
    """Show the form and the users that it finds. A single user is shown at once."""
    wanted = visit.query.get("q", "").strip()[:_LONGEST_QUESTION]
    found = await find_users(visit.engine, visit.who, wanted) if wanted else []
    if len(found) == 1:
        return visit.redirect(f"/page/users/{found[0].id}")
    return visit.show("users.html", wanted=wanted, users=found)


async def show_user(visit: Visit) -> Response:
    """Show one user."""
    view = await _view(visit)
    own = Selection(user_id=view.user.id)
    page = await letters.list_letters(visit.engine, visit.parts.settings, visit.who, own, limit=_MAX_LETTERS)
    options = {pair.specialization: _options(pair) for pair in view.pairs}
    return visit.show("user.html", view=view, options=options, directions=DIRECTIONS, letters=page)


async def ask_sync(visit: Visit) -> Response:
    """Show which levels a sync would write, and ask for confirmation."""
    await visit.check("sync_user")
    direction = direction_in(visit.query)
    view = await _view(visit)
    steps = [_step(pair, direction) for pair in _named(view, visit.query.get("specialization", ""))]
    writes = sum(step.writes for step in steps)
    name = visit.query.get("specialization", "")
    return visit.show("sync.html", view=view, steps=steps, writes=writes, direction=direction, specialization=name)


async def sync(visit: Visit) -> Response:
    """Sync. Under the locks, the sync decides again what to write."""
    user_id: int = visit.request.path_params["user_id"]
    direction, name = direction_in(visit.form), visit.form.get("specialization", "")
    settings = visit.parts.settings
    done: list[SyncResult]
    if name:
        done = [await users.sync_pair(visit.engine, settings, visit.who, (user_id, name), direction)]
    else:
        done = list((await users.sync_user(visit.engine, settings, visit.who, user_id, direction)).results.values())
    return visit.show("synced.html", user_id=user_id, direction=direction, done=done)


async def _view(visit: Visit) -> UserView:
    return await read_user(visit.engine, visit.who, visit.request.path_params["user_id"])


def _named(view: UserView, name: str) -> list[UserPair]:
    if not name:
        return [pair for pair in view.pairs if pair.maximum is not None]
    found = [pair for pair in view.pairs if pair.specialization == name]
    if not found:
        raise NoSuch("There is no such specialization.")
    return found


def _options(pair: UserPair) -> list[tuple[Direction, SyncPreview]]:
    """Return the directions that would write something, each with its step."""
    steps = [(direction, _step(pair, direction)) for direction in DIRECTIONS]
    return [(direction, step) for direction, step in steps if step.writes]


def _step(pair: UserPair, direction: Direction) -> SyncPreview:
    decided = pair.decide(direction)
    after: dict[Side, int | None] = {side: pair.sides.level(side) for side in ("progress", "license")}
    if decided.action is PairAction.NONE or decided.target is None:
        return SyncPreview(pair, writes=False, after=after, text=decided.detail, lowers=False)
    after[decided.target] = decided.new
    text = (
        f"the {decided.target} is created" if decided.action is PairAction.CREATED else f"the {decided.target} changes"
    )
    return SyncPreview(pair, writes=True, after=after, text=text, lowers=decided.lowers)
