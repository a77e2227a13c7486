"""The application's database at five moments of its history (A to E).

Each state is a list of statements, and the settings that docs/adopt.md gives for it. All of them contain the same
people and the same kinds of drift: pairs that agree, pairs that differ, licenses without progress, and names that no
specialization has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ADMIN, INSTRUCTOR, STUDENT = "admin@lfa.example", "instructor@lfa.example", "student5@lfa.example"
SPORT_DIRECTORS = ("director3@lfa.example", "director4@lfa.example")
"""In state E, users 3 and 4: one with each spelling of the newest role."""
USERS = 200
FIRST_STUDENT = 5
OLD_NAMES = ("PLAYER", "COACH", "INTERNSHIP")
NEW_NAMES = ("GANCUJU_PLAYER", "LFA_FOOTBALL_PLAYER", "LFA_COACH", "INTERNSHIP")
MAX_LEVELS = {"GANCUJU_PLAYER": 8, "LFA_FOOTBALL_PLAYER": 8, "LFA_COACH": 8, "INTERNSHIP": 3}
LICENSE_DEFAULTS = {
    "payment_verified": False, "onboarding_completed": False, "is_active": True,
    "renewal_cost": 1000, "credit_balance": 0, "credit_purchased": 0,
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """One state: the statements that create its database, and the settings that it needs."""

    letter: str
    statements: tuple[str, ...]
    specializations: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_decision: int = 0
    """Pairs that no direction can repair: a name that no specialization has, or a license in another case."""
    removed: int = 0
    """Rows that the migrations remove as duplicates."""

    def __str__(self) -> str:
        return self.letter


def _users(*more_roles: str) -> tuple[str, ...]:
    roles = ", ".join(f"'{role}'" for role in ("ADMIN", "INSTRUCTOR", "STUDENT", *more_roles))
    return (
        f"CREATE TYPE userrole AS ENUM ({roles})",
        """
        CREATE TABLE users (id serial PRIMARY KEY, name varchar NOT NULL, email varchar NOT NULL UNIQUE,
            password_hash varchar NOT NULL, role userrole NOT NULL, is_active boolean)
        """,
        f"""
        INSERT INTO users (name, email, password_hash, role)
        SELECT 'User ' || i,
               CASE i WHEN 1 THEN '{ADMIN}' WHEN 2 THEN '{INSTRUCTOR}' ELSE 'student' || i || '@lfa.example' END, 'x',
               (CASE i WHEN 1 THEN 'ADMIN' WHEN 2 THEN 'INSTRUCTOR' ELSE 'STUDENT' END)::userrole
          FROM generate_series(1, {USERS}) AS i
        """,
    )


def _history(revision: str) -> tuple[str, ...]:
    """Return the application's own Alembic history, which is not levelsync's."""
    return (
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        f"INSERT INTO alembic_version VALUES ('{revision}')",
    )


def _old_specializations(internship_levels: int) -> tuple[str, ...]:
    return (
        """
        CREATE TABLE specializations (id varchar(50) PRIMARY KEY, name varchar(100) NOT NULL, icon varchar(10),
            description text, max_levels integer NOT NULL, is_active boolean, created_at timestamp)
        """,
        f"""
        INSERT INTO specializations (id, name, max_levels, is_active)
        VALUES ('PLAYER', 'Player', 8, true), ('COACH', 'Coach', 8, true),
               ('INTERNSHIP', 'Internship', {internship_levels}, true)
        """,
    )


_SHORT_SPECIALIZATIONS = (
    """
    CREATE TABLE specializations (id varchar(50) PRIMARY KEY, is_active boolean NOT NULL,
        created_at timestamp NOT NULL)
    """,
    """
    INSERT INTO specializations VALUES ('GANCUJU_PLAYER', true, now()), ('LFA_FOOTBALL_PLAYER', true, now()),
        ('LFA_COACH', true, now()), ('INTERNSHIP', true, now())
    """,
)
_LEVEL_TABLES = (
    """
    CREATE TABLE player_levels (id integer PRIMARY KEY, name varchar(100) NOT NULL, color varchar(50) NOT NULL,
        required_xp integer NOT NULL, required_sessions integer NOT NULL, description text,
        license_title varchar(255) NOT NULL)
    """,
    """
    CREATE TABLE coach_levels (id integer PRIMARY KEY, name varchar(255) NOT NULL, required_xp integer NOT NULL,
        required_sessions integer NOT NULL, theory_hours integer NOT NULL, practice_hours integer NOT NULL,
        description text, license_title varchar(255) NOT NULL)
    """,
    """
    CREATE TABLE internship_levels (id integer PRIMARY KEY, name varchar(100) NOT NULL, required_xp integer NOT NULL,
        required_sessions integer NOT NULL, total_hours integer NOT NULL, description text,
        license_title varchar(255) NOT NULL)
    """,
)
_LEVEL_ROWS = (
    """
    INSERT INTO player_levels
    SELECT i, 'Player ' || i, 'white', i * 10000, i + 10, NULL, 'Player ' || i FROM generate_series(1, 8) AS i
    """,
    """
    INSERT INTO coach_levels
    SELECT i, 'Coach ' || i, i * 15000, i + 14, i, i, NULL, 'Coach ' || i FROM generate_series(1, 8) AS i
    """,
    """
    INSERT INTO internship_levels VALUES (1, 'Junior', 10000, 15, 1, NULL, 'Junior'),
        (2, 'Mid-level', 18000, 18, 2, NULL, 'Mid-level'), (3, 'Senior', 28000, 22, 3, NULL, 'Senior')
    """,
)
_NEW_LICENSE_COLUMNS = """,
    payment_reference_code varchar(50) UNIQUE, payment_verified boolean NOT NULL, payment_verified_at timestamp,
    onboarding_completed boolean NOT NULL, is_active boolean NOT NULL, expires_at timestamp,
    renewal_cost integer NOT NULL, credit_balance integer NOT NULL, credit_purchased integer NOT NULL"""
_NEW_LICENSE_VALUES = ", ".join(str(value) for value in LICENSE_DEFAULTS.values())
_NO_MORE, _NEW_COLUMNS = ("", ""), (", " + ", ".join(LICENSE_DEFAULTS), ", " + _NEW_LICENSE_VALUES)
"""More columns of a license, and their values."""


def _level_records(
    *, hours: str = "NOT NULL DEFAULT 0", license_columns: str = "", foreign_key: str = ""
) -> tuple[str, ...]:
    return (
        f"""
        CREATE TABLE specialization_progress (id serial PRIMARY KEY,
            student_id integer NOT NULL REFERENCES users ON DELETE CASCADE,
            specialization_id varchar(50) NOT NULL REFERENCES specializations ON DELETE CASCADE,
            current_level integer, total_xp integer, completed_sessions integer, completed_projects integer,
            theory_hours_completed integer {hours}, practice_hours_completed integer {hours},
            last_activity timestamp, created_at timestamp, updated_at timestamp)
        """,
        f"""
        CREATE TABLE user_licenses (id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users,
            specialization_type varchar(20) NOT NULL {foreign_key}, current_level integer NOT NULL,
            max_achieved_level integer NOT NULL, started_at timestamp NOT NULL, last_advanced_at timestamp,
            instructor_notes text, created_at timestamp, updated_at timestamp{license_columns})
        """,
        """
        CREATE TABLE license_progressions (id serial PRIMARY KEY,
            user_license_id integer NOT NULL REFERENCES user_licenses, from_level integer NOT NULL,
            to_level integer NOT NULL, advanced_by integer REFERENCES users, advancement_reason text,
            requirements_met text, advanced_at timestamp)
        """,
        """
        CREATE TABLE license_metadata (id serial PRIMARY KEY, specialization_type varchar(20) NOT NULL,
            level_code varchar(50) NOT NULL, level_number integer NOT NULL, title varchar(100) NOT NULL)
        """,
        """
        INSERT INTO license_metadata (specialization_type, level_code, level_number, title)
        SELECT 'INTERNSHIP', 'intern_' || i, i, 'Intern ' || i FROM generate_series(1, 5) AS i
        """,
    )


def _progress_once(name: str) -> str:
    return f"ALTER TABLE specialization_progress ADD CONSTRAINT {name} UNIQUE (student_id, specialization_id)"


def _license_once(name: str) -> str:
    return f"ALTER TABLE user_licenses ADD CONSTRAINT {name} UNIQUE (user_id, specialization_type)"


def _pairs(more: tuple[str, str] = _NO_MORE) -> tuple[str, ...]:
    """Give half of the students both rows, and the others a license without progress, which is normal there."""
    columns, values = more
    return (
        f"""
        INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at{columns})
        SELECT u.id, s.id, 1 + u.id % 2, 2, '2025-09-01'{values} FROM users u, specializations s
         WHERE u.id >= {FIRST_STUDENT}
        """,
        f"""
        INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp,
            completed_sessions, completed_projects)
        SELECT u.id, s.id, CASE WHEN u.id % 20 = 0 THEN 3 ELSE 1 + u.id % 2 END, 100, 1, 0
          FROM users u, specializations s
         WHERE u.id BETWEEN {FIRST_STUDENT} AND {USERS // 2}
        """,
    )


def _stray_license(user_id: int, name: str, more: tuple[str, str] = _NO_MORE) -> str:
    """Create a license whose name is in no row of `specializations`."""
    columns, values = more
    return (
        "INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level,"
        f" started_at{columns}) VALUES ({user_id}, '{name}', 1, 1, '2025-09-01'{values})"
    )


def _twice(table: str) -> str:
    """Duplicate three rows, equal in every column but the id."""
    return f"""
        DO $$ DECLARE names text; BEGIN
            SELECT string_agg(column_name, ', ') INTO names FROM information_schema.columns
             WHERE table_name = '{table}' AND column_name <> 'id';
            EXECUTE format('INSERT INTO {table} (%s) SELECT %s FROM {table} ORDER BY id LIMIT 3', names, names);
        END $$
    """


_OLD_TABLES = (
    *_LEVEL_TABLES,
    *_LEVEL_ROWS,
    *_level_records(),
    *_pairs(),
    _progress_once("uq_student_specialization"),
    _license_once("uq_user_spec"),
    _stray_license(1, "player"),
    _stray_license(2, "GOALKEEPER"),
)

STATES = (
    State(
        "A",  # October 2025, just before the first constraint on progress and license
        (*_history("fc73d1aca3f3"), *_users(), *_old_specializations(internship_levels=5), *_OLD_TABLES),
        OLD_NAMES,
        needs_decision=2,
    ),
    State(
        "B",  # the state in which the application fixed INTERNSHIP itself
        (
            *_history("fix_internship_levels"),
            *_users(),
            *_old_specializations(internship_levels=3),
            *_OLD_TABLES,
            _progress_once("uq_specialization_progress_user_spec"),
        ),
        OLD_NAMES,
        needs_decision=2,
    ),
    State(
        "C",  # 2025-11-19: the names and maxima of specializations are in files, licenses refer to specializations
        (
            *_history("f00c64f4c615"),
            *_users(),
            *_SHORT_SPECIALIZATIONS,
            *_LEVEL_TABLES,
            *_LEVEL_ROWS,
            *_level_records(foreign_key="REFERENCES specializations"),
            *_pairs(),
            _progress_once("uq_student_specialization"),
            _progress_once("uq_specialization_progress_user_spec"),
            _license_once("uq_user_spec"),
        ),
        NEW_NAMES,
        {"max_levels": MAX_LEVELS},
    ),
    State(
        "D",  # 2026-01-18: created from the models, without a unique constraint on either table
        (
            *_history("created_from_models"),
            *_users(),
            *_SHORT_SPECIALIZATIONS,
            *_LEVEL_TABLES,
            *_LEVEL_ROWS,
            *_level_records(hours="", license_columns=_NEW_LICENSE_COLUMNS),
            *_pairs(_NEW_COLUMNS),
            _stray_license(2, "LFA_PLAYER_PRE", _NEW_COLUMNS),
            _twice("specialization_progress"),
            _twice("user_licenses"),
        ),
        NEW_NAMES,
        {"max_levels": MAX_LEVELS, "license_defaults": LICENSE_DEFAULTS},
        needs_decision=1,
        removed=6,
    ),
    State(
        "E",  # 2026-07-01, the newest: empty level tables, two more roles, licenses unique, progress not
        (
            *_history("2026_07_01_newest"),
            *_users("SPORT_DIRECTOR", "sport_director"),
            f"UPDATE users SET role = 'SPORT_DIRECTOR', email = '{SPORT_DIRECTORS[0]}' WHERE id = 3",
            f"UPDATE users SET role = 'sport_director', email = '{SPORT_DIRECTORS[1]}' WHERE id = 4",
            *_SHORT_SPECIALIZATIONS,
            *_LEVEL_TABLES,
            *_level_records(hours="", license_columns=_NEW_LICENSE_COLUMNS),
            *_pairs(_NEW_COLUMNS),
            _license_once("uq_user_license_spec"),
            _stray_license(2, "LFA_PLAYER_PRE", _NEW_COLUMNS),
            _twice("specialization_progress"),
        ),
        NEW_NAMES,
        {"max_levels": MAX_LEVELS, "license_defaults": LICENSE_DEFAULTS},
        needs_decision=1,
        removed=3,
    ),
)
"""From the oldest to the newest."""
E = STATES[-1]
THOUSANDS = f"""
    INSERT INTO users (name, email, password_hash, role)
    SELECT 'New ' || i, 'new' || i || '@lfa.example', 'x', 'STUDENT' FROM generate_series(1, 5000) AS i;
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at,
        {", ".join(LICENSE_DEFAULTS)})
    SELECT id, 'LFA_FOOTBALL_PLAYER', 1, 1, now(), {_NEW_LICENSE_VALUES} FROM users WHERE email LIKE 'new%'
"""
"""State E as it really is: 5,000 more licenses that have no progress."""
