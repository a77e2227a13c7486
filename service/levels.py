"""The curriculum: the specializations, their highest levels, and the fingerprint that stored functions compare."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from events.base import INT4_MAX
from service.core.names import fold, folded
from service.faults import InstallationFault
from service.settings import PREFIX, Settings, SettingsError, load_settings

FALLBACK: Mapping[str, int] = {"COACH": 8, "PLAYER": 8, "INTERNSHIP": 3}
"""The levels that `LicenseSystemHelper` returns where database and setting have none. `doctor` compares them with the
database.
"""

SETTING = f"{PREFIX}MAX_LEVELS"
_OPTION = "levelsync_max_levels"
_DEFAULT_MAX_LEVEL = 1

# `to_jsonb` reads the column by its name, so the statement is valid without the column too. Every batch runs it, so
# its rows are combined with the setting in Python: in SQL, planning took eight times as long.
_ROWS = text("""
    SELECT CAST(t.id AS text) AS id, CAST(to_jsonb(t) -> 'max_levels' AS text) AS max_levels FROM specializations t
""")
_FOREIGN_KEY_TABLE = text("""
    SELECT min(CAST(CAST(conrelid AS regclass) AS text)) FROM pg_constraint
     WHERE contype = 'f' AND confrelid = to_regclass('specializations')
       AND conrelid IN (to_regclass('specialization_progress'), to_regclass('user_licenses'))
""")
MAXIMA = """
    SELECT m.id, m.max_levels FROM unnest(CAST(:maxima_of AS text[]), CAST(:maxima AS int[])) AS m (id, max_levels)
"""
"""A relation for statements that compare whole tables. `Curriculum.parameters` returns its parameters. `max_levels` is
NULL for a specialization that cannot be used.
"""
_HAS_COLUMN = text("""
    SELECT to_regclass('specializations') IS NULL  -- a missing table is reported elsewhere
        OR EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = to_regclass('specializations') AND attname = 'max_levels' AND NOT attisdropped)
""")
_MAX_LEVEL = text(f"""
    SELECT CAST(to_jsonb(s) ->> 'max_levels' AS int) FROM specializations s
     WHERE {folded("s.id")} = {folded(":name")} ORDER BY CAST(s.id AS text) = :name DESC, s.id LIMIT 1
""")
_HELP = f'set {SETTING} to a JSON object with the highest level of each specialization, such as {{"PLAYER": 8}}'

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Specialization:
    """One specialization, as the database and the setting describe it."""

    id: str
    max_levels: int | None
    in_database: int | None
    in_setting: int | None
    has_row: bool
    has_column: bool = False
    required_by: str | None = None
    """A level table with a foreign key, which refuses names without a row in `specializations`."""

    def fault(self) -> str:
        """Return why the levels of this specialization cannot be checked, or ''."""
        if self.max_levels is not None:
            return ""
        if not self.has_row:
            return (
                f"specializations has no row {self.id}, which {SETTING} names, and {self.required_by} has a foreign "
                f"key to it: the application has to create that specialization"
            )
        lacking = "specializations.max_levels is NULL" if self.has_column else "specializations has no max_levels"
        return f"no highest level of {self.id} is known: {lacking} and {SETTING} does not name it; {_HELP}"


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The specializations at one time: each name as the database has it, and its highest level."""

    levels: Mapping[str, int]
    faults: Mapping[str, str] = field(default_factory=dict)
    """Specializations that cannot be used until the installation is repaired, each with the reason."""
    _by_fold: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_fold", {fold(name): name for name in reversed(self.names)})

    @property
    def parameters(self) -> dict[str, list[Any]]:
        """Return the parameters of a statement that joins `MAXIMA`."""
        names = self.names
        return {"maxima_of": names, "maxima": [self.levels.get(name) for name in names]}

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self.levels, *self.faults})

    def canonical(self, name: str) -> str | None:
        """Return the name as the database has it. An exact match comes before one in another case. None if unknown."""
        return name if name in self.levels or name in self.faults else self._by_fold.get(fold(name))

    def max_level(self, canonical: str) -> int:
        """Return the highest level of a specialization, whose name is as `canonical` returns it.

        Raises:
            InstallationFault: The specialization cannot be used, for example because its highest level is not known.
            KeyError: There is no such specialization.
        """
        if canonical in self.faults:
            raise InstallationFault(self.faults[canonical])
        return self.levels[canonical]


async def read_curriculum(conn: AsyncConnection) -> Curriculum:
    """Read the current specializations.

    Raises:
        InstallationFault: No specialization can be used. The text names the column and the setting.
    """
    found = await read_specializations(conn)
    faults = faults_of(found)
    levels = {one.id: one.max_levels for one in found if one.id not in faults and one.max_levels is not None}
    if not levels:
        raise InstallationFault(_nothing_usable(found, faults))
    return Curriculum(levels, faults)


async def read_specializations(conn: AsyncConnection) -> list[Specialization]:
    """Read every specialization of the database and the setting, active or not, sorted by name."""
    rows = (await conn.execute(_ROWS)).all()
    setting = {fold(name): level for name, level in _configured_levels(conn).items()}
    found = [_from_row(row.id, row.max_levels, setting.get(fold(row.id))) for row in rows]
    here = {fold(row.id) for row in rows}
    elsewhere = {name: level for name, level in _configured_levels(conn).items() if fold(name) not in here}
    if elsewhere:
        required_by = await conn.scalar(_FOREIGN_KEY_TABLE)
        found += [_from_setting(name, level, required_by) for name, level in elsewhere.items()]
    return sorted(found, key=lambda one: one.id)


def _from_row(name: str, as_json: str | None, in_setting: int | None) -> Specialization:
    """Describe a row. `as_json` is the value of `max_levels` as JSON, or None without the column."""
    in_database = _number(as_json)
    used = in_setting if in_database is None else in_database
    return Specialization(name, used, in_database, in_setting, has_row=True, has_column=as_json is not None)


def _from_setting(name: str, level: int, required_by: str | None) -> Specialization:
    """Describe a name that only the setting has. It can be used unless a foreign key refuses every row with it."""
    return Specialization(name, None if required_by else level, None, level, has_row=False, required_by=required_by)


def _number(as_json: str | None) -> int | None:
    try:
        return min(int(Decimal(as_json or "null")), INT4_MAX)
    except (ArithmeticError, ValueError):
        return None


def faults_of(found: Sequence[Specialization]) -> dict[str, str]:
    """Return a sentence for each specialization that cannot be used."""
    spellings = Counter(fold(one.id) for one in found)
    faults = {one.id: fault for one in found if (fault := one.fault())}
    for one in found:
        if spellings[fold(one.id)] > 1:
            same = " and ".join(other.id for other in found if fold(other.id) == fold(one.id))
            faults[one.id] = f"specializations has {same}, which are one name apart from case: rename or remove one"
    return faults


def _nothing_usable(found: Sequence[Specialization], faults: Mapping[str, str]) -> str:
    if not found:
        return f"the table specializations is empty and {SETTING} is not set: no level can be checked; {_HELP}"
    if all(one.has_row and not one.has_column and one.in_setting is None for one in found):
        return NO_COLUMN
    return "; ".join(faults.values())


NO_COLUMN = f"the table specializations has no column max_levels and {SETTING} is not set: {_HELP}"
"""The message where neither the database nor the setting has a maximum."""


def missing_maxima(conn: Connection) -> list[str]:
    """Return `NO_COLUMN` if the database has no column for maxima and the setting is empty, else an empty list."""
    return [] if _configured_levels(conn) or conn.scalar(_HAS_COLUMN) else [NO_COLUMN]


def has_column(conn: Connection) -> bool:
    """Return whether `specializations` has the column `max_levels`."""
    return bool(conn.scalar(_HAS_COLUMN))


def maxima_options(settings: Settings) -> dict[str, Any]:
    """Return the execution options that pass the setting to the connections of an engine."""
    return {_OPTION: settings.max_levels}


def _configured_levels(conn: AsyncConnection | Connection) -> Mapping[str, int]:
    sync = conn.sync_connection if isinstance(conn, AsyncConnection) else conn
    return sync.get_execution_options().get(_OPTION, {}) if sync is not None else {}


class LicenseSystemHelper:
    """The application's helper for the highest level of a specialization, under the name that it uses."""

    @staticmethod
    def get_specialization_max_level(specialization: str, db: Session | None = None) -> int:
        """Return the highest level of a specialization, whose name may be in any case.

        The value of the database comes first, then the setting MAX_LEVELS of this process. Where neither has a level
        above 0, return 8 for COACH and PLAYER, 3 for INTERNSHIP and 1 for any other name. A failed query is logged,
        and the session stays usable.
        """
        found = None if db is None else _query_max_level(specialization, db)
        return found or _configured_max_level(specialization) or FALLBACK.get(fold(specialization), _DEFAULT_MAX_LEVEL)


def _query_max_level(specialization: str, db: Session) -> int | None:
    try:
        # A savepoint of the session would also flush the caller's pending objects, and an error in them would look
        # like an error of this query. So the savepoint is one of the connection.
        with db.connection().begin_nested():
            found: int | None = db.connection().scalar(_MAX_LEVEL, {"name": specialization})
    except Exception:
        log.warning("max_levels of %r cannot be read; the fallback is used", specialization, exc_info=True)
        return None
    return found


def _configured_max_level(specialization: str) -> int | None:
    """Read the setting in the environment of this process, which is the application's when its own code calls."""
    try:
        given = load_settings().max_levels
    except SettingsError as error:
        log.warning("%s cannot be read: %s", SETTING, error)
        return None
    return {fold(name): level for name, level in given.items()}.get(fold(specialization))


_FINGERPRINT = text("SELECT levelsync.curriculum_v1()")


@dataclass(frozen=True, slots=True)
class CurriculumSnapshot:
    """A curriculum and its fingerprint. A batch is decided again if the database's differs while it holds its locks."""

    curriculum: Curriculum
    fingerprint: str | None


async def read_snapshot(conn: AsyncConnection) -> CurriculumSnapshot:
    """Read the fingerprint, then the curriculum, so that the next comparison finds a change between the two reads.

    Raises:
        InstallationFault: No specialization can be used.
    """
    fingerprint = (await conn.execute(_FINGERPRINT)).scalar_one()
    return CurriculumSnapshot(await read_curriculum(conn), fingerprint)
