"""How high a specialization goes. This is the only module that knows (R11 to R13).

The database's `specializations.max_levels` wins. Newer releases of the application have dropped that column; the
setting MAX_LEVELS answers where the column, its value or the row is missing. The setting travels with the engine
(`maxima_options`), so that whoever has a connection has it too (docs/decisions/0016).

Appliers and syncs call `read_curriculum`. Statements that compare whole tables join `MAXIMA`. `LicenseSystemHelper` is
for the application's own code: its fallback answers callers without a database and never decides a write.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from service.database.faults import InstallationFault
from service.names import fold, folded
from service.settings import PREFIX, Settings, SettingsError, load_settings

FALLBACK: Mapping[str, int] = {"COACH": 8, "PLAYER": 8, "INTERNSHIP": 3}
"""What `LicenseSystemHelper` answers where nothing else does (R12). `doctor` compares it with the database."""

SETTING = f"{PREFIX}MAX_LEVELS"
_OPTION = "levelsync_max_levels"
_UNKNOWN = 1

# `to_jsonb` reads the column by name, so the statement is valid without the column too. A name of the setting that has
# no row is known as well, unless a foreign key would refuse every row with it.
MAXIMA = f"""
    SELECT coalesce(s.id, m.name) AS id,
           CASE WHEN s.id IS NOT NULL OR k.required_by IS NULL THEN coalesce(s.level, m.level) END AS max_levels,
           s.level AS in_database, m.level AS in_setting, s.id IS NOT NULL AS has_row, s.has_column, k.required_by
      FROM (SELECT CAST(r.id AS text) AS id, r.doc ? 'max_levels' AS has_column,
                   CASE WHEN jsonb_typeof(r.doc -> 'max_levels') = 'number'
                        THEN CAST(r.doc ->> 'max_levels' AS int) END AS level
              FROM (SELECT t.id, to_jsonb(t) AS doc FROM specializations t) r) s
      FULL JOIN (SELECT e.key AS name, CAST(e.value AS int) AS level
                   FROM jsonb_each_text(CAST(:max_levels AS jsonb)) e) m
        ON {folded("m.name")} = {folded("s.id")}
     CROSS JOIN (SELECT (SELECT CAST(CAST(c.conrelid AS regclass) AS text) FROM pg_constraint c
                          WHERE c.contype = 'f' AND c.confrelid = to_regclass('specializations')
                            AND c.conrelid IN (to_regclass('specialization_progress'), to_regclass('user_licenses'))
                          ORDER BY 1 LIMIT 1) AS required_by) k
"""
"""A row for each specialization: `id` as the database writes it, `max_levels` (NULL where nothing gives one). Its
parameter `max_levels` is in `maxima_values`. Join it as a materialized CTE: it is a few rows, read once."""

_ALL = text(f"{MAXIMA} ORDER BY 1")
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
    has_column: bool | None
    required_by: str | None
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
    """Read the specializations as they are now; a new row counts from the next call on (R9c).

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
    return [Specialization(*row) for row in await conn.execute(_ALL, maxima_values(conn))]


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
    if all(one.has_column is False and one.in_setting is None for one in found):
        return NO_COLUMN
    return "; ".join(faults.values())


NO_COLUMN = f"the table specializations has no column max_levels and {SETTING} is not set: {_HELP}"
"""The sentence where neither the database nor the setting has any maximum."""


def missing_maxima(conn: Connection) -> list[str]:
    """Return `NO_COLUMN` where the database has no column for maxima and there is no setting either, else nothing."""
    given = json.loads(maxima_values(conn)["max_levels"])
    return [] if given or conn.scalar(_HAS_COLUMN) else [NO_COLUMN]


def has_column(conn: Connection) -> bool:
    """Return whether `specializations` has the column `max_levels`."""
    return bool(conn.scalar(_HAS_COLUMN))


def maxima_options(settings: Settings) -> dict[str, Any]:
    """Return the execution options that give an engine's connections the setting."""
    return {_OPTION: json.dumps(settings.max_levels)}


def maxima_values(conn: AsyncConnection | Connection) -> dict[str, str]:
    """Return the parameters of a statement that contains `MAXIMA`, for a connection of the service's engine."""
    sync = conn.sync_connection if isinstance(conn, AsyncConnection) else conn
    options = sync.get_execution_options() if sync is not None else {}
    return {"max_levels": options.get(_OPTION, "{}")}


class LicenseSystemHelper:
    """The application's question, under its own name."""

    @staticmethod
    def get_specialization_max_level(specialization: str, db: Session | None = None) -> int:
        """Return the highest level of a specialization, its name in any case.

        The database answers first, then the setting MAX_LEVELS of this process. Where neither has a level above 0:
        COACH 8, PLAYER 8, INTERNSHIP 3, anything else 1 (R12). A failed query is logged and leaves the session as
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
