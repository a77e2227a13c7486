"""The specializations as a batch was decided with them, and the text by which the stored functions compare them."""

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
"""What `LicenseSystemHelper` answers where nothing else does. `doctor` compares it with the database."""

SETTING = f"{PREFIX}MAX_LEVELS"
_OPTION = "levelsync_max_levels"
_UNKNOWN = 1

# `to_jsonb` reads the column by its name, so the statement is valid without the column too. Every batch runs it: what
# it finds is combined with the setting here and not in SQL, which took eight times as long to plan.
_ROWS = text("""
    SELECT CAST(t.id AS text) AS id, CAST(to_jsonb(t) -> 'max_levels' AS text) AS max_levels FROM specializations t
""")
_REQUIRED_BY = text("""
    SELECT min(CAST(CAST(conrelid AS regclass) AS text)) FROM pg_constraint
     WHERE contype = 'f' AND confrelid = to_regclass('specializations')
       AND conrelid IN (to_regclass('specialization_progress'), to_regclass('user_licenses'))
""")
MAXIMA = """
    SELECT m.id, m.max_levels FROM unnest(CAST(:maxima_of AS text[]), CAST(:maxima AS int[])) AS m (id, max_levels)
"""
"""A relation for statements that compare whole tables, with the parameters of `Curriculum.parameters`. `max_levels` is
NULL where a specialization cannot be used."""
_HAS_COLUMN = text("""
    SELECT to_regclass('specializations') IS NULL  -- what is missing then is the table, and others say so
        OR EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = to_regclass('specializations') AND attname = 'max_levels' AND NOT attisdropped)
""")
_ONE = text(f"""
    SELECT CAST(to_jsonb(s) ->> 'max_levels' AS int) FROM specializations s
     WHERE {folded("s.id")} = {folded(":name")} ORDER BY CAST(s.id AS text) = :name DESC, s.id LIMIT 1
""")
_HELP = f'set {SETTING} to a JSON object with the highest level of each specialization, such as {{"PLAYER": 8}}'

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Specialization:
    """What the database and the setting say about one specialization."""

    id: str
    max_levels: int | None
    in_database: int | None
    in_setting: int | None
    has_row: bool
    has_column: bool = False
    required_by: str | None = None
    """A level table whose foreign key refuses names that have no row in `specializations`."""

    def fault(self) -> str:
        """Say why no level of it can be checked, or ''."""
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
    """The specializations of one moment: each name as the database writes it, and its highest level."""

    levels: Mapping[str, int]
    faults: Mapping[str, str] = field(default_factory=dict)
    """Names that exist and cannot be used until somebody repairs the installation, each with the reason."""
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
        """Every name, sorted."""
        return sorted({*self.levels, *self.faults})

    def canonical(self, name: str) -> str | None:
        """Return the name as the database writes it: the exact one, else the same without case, else None."""
        return name if name in self.levels or name in self.faults else self._by_fold.get(fold(name))

    def max_level(self, canonical: str) -> int:
        """Return the highest level of a specialization, named as `canonical` returns it.

        Raises:
            InstallationFault: it exists, and its highest level is not known.
            KeyError: there is no such specialization.
        """
        if canonical in self.faults:
            raise InstallationFault(self.faults[canonical])
        return self.levels[canonical]


async def read_curriculum(conn: AsyncConnection) -> Curriculum:
    """Read the specializations as they are now; a new row counts from the next call on.

    Raises:
        InstallationFault: no specialization can be used; the text names the column and the setting.
    """
    found = await read_specializations(conn)
    faults = faults_of(found)
    levels = {one.id: one.max_levels for one in found if one.id not in faults and one.max_levels is not None}
    if not levels:
        raise InstallationFault(_nothing_usable(found, faults))
    return Curriculum(levels, faults)


async def read_specializations(conn: AsyncConnection) -> list[Specialization]:
    """Read what database and setting say about every specialization, active or not, by name."""
    rows = (await conn.execute(_ROWS)).all()
    setting = {fold(name): level for name, level in _setting_of(conn).items()}
    found = [_of_row(row.id, row.max_levels, setting.get(fold(row.id))) for row in rows]
    here = {fold(row.id) for row in rows}
    elsewhere = {name: level for name, level in _setting_of(conn).items() if fold(name) not in here}
    if elsewhere:
        required_by = await conn.scalar(_REQUIRED_BY)
        found += [_of_setting(name, level, required_by) for name, level in elsewhere.items()]
    return sorted(found, key=lambda one: one.id)


def _of_row(name: str, as_json: str | None, in_setting: int | None) -> Specialization:
    """`as_json` is the column's value as JSON, None without the column."""
    in_database = _number(as_json)
    used = in_setting if in_database is None else in_database
    return Specialization(name, used, in_database, in_setting, has_row=True, has_column=as_json is not None)


def _of_setting(name: str, level: int, required_by: str | None) -> Specialization:
    """A name of the setting that has no row: known, unless a foreign key would refuse every row with it."""
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
"""The sentence where neither the database nor the setting has any maximum."""


def missing_maxima(conn: Connection) -> list[str]:
    """Return `NO_COLUMN` where the database has no column for maxima and there is no setting either, else nothing."""
    return [] if _setting_of(conn) or conn.scalar(_HAS_COLUMN) else [NO_COLUMN]


def has_column(conn: Connection) -> bool:
    """Return whether `specializations` has the column `max_levels`."""
    return bool(conn.scalar(_HAS_COLUMN))


def maxima_options(settings: Settings) -> dict[str, Any]:
    """Return the execution options that give an engine's connections the setting."""
    return {_OPTION: settings.max_levels}


def _setting_of(conn: AsyncConnection | Connection) -> Mapping[str, int]:
    sync = conn.sync_connection if isinstance(conn, AsyncConnection) else conn
    return sync.get_execution_options().get(_OPTION, {}) if sync is not None else {}


class LicenseSystemHelper:
    """The application's question, under its own name."""

    @staticmethod
    def get_specialization_max_level(specialization: str, db: Session | None = None) -> int:
        """Return the highest level of a specialization, its name in any case.

        The database answers first, then the setting MAX_LEVELS of this process. Where neither has a level above 0:
        COACH 8, PLAYER 8, INTERNSHIP 3, anything else 1. A failed query is logged and leaves the session as
        usable as it was.
        """
        found = None if db is None else _ask(specialization, db)
        return found or _from_setting(specialization) or FALLBACK.get(fold(specialization), _UNKNOWN)


def _ask(specialization: str, db: Session) -> int | None:
    try:
        # A savepoint of the connection, not of the session: that one would also flush what the caller has not yet
        # flushed, and a fault of the caller's rows would look like a fault of this question.
        with db.connection().begin_nested():
            found: int | None = db.connection().scalar(_ONE, {"name": specialization})
    except Exception:
        log.warning("max_levels of %r cannot be read; the fallback answers", specialization, exc_info=True)
        return None
    return found


def _from_setting(specialization: str) -> int | None:
    """Look into the environment of this process: the application's, where its own code asks."""
    try:
        given = load_settings().max_levels
    except SettingsError as error:
        log.warning("%s cannot be read: %s", SETTING, error)
        return None
    return {fold(name): level for name, level in given.items()}.get(fold(specialization))


_PRINT = text("SELECT levelsync.curriculum_v1()")


@dataclass(frozen=True, slots=True)
class Known:
    """A curriculum and its fingerprint: where the database's differs under the locks, the batch is decided again."""

    curriculum: Curriculum
    fingerprint: str | None


async def read_known(conn: AsyncConnection) -> Known:
    """Read both, the fingerprint first: a change in between is then found by the next comparison.

    Raises:
        InstallationFault: no level can be checked.
    """
    fingerprint = (await conn.execute(_PRINT)).scalar_one()
    return Known(await read_curriculum(conn), fingerprint)
