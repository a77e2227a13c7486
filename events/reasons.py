"""Why a record can never apply (semantics, "The contract")."""

from enum import StrEnum


class Reason(StrEnum):
    """Dead-letter reasons, the same for every topic."""

    MALFORMED = "malformed"
    """Not JSON, not UTF-8, or a tombstone."""
    INVALID = "invalid"
    """Not the schema."""
    BAD_TIME = "bad_time"
    """`ce_time` cannot be read, lies before 2000, or more than five minutes ahead of the record's timestamp."""
    UNKNOWN_TYPE = "unknown_type"
    """No or another CloudEvents type, or a known one on another type's topic."""
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    """`specializations` has no such specialization."""
    UNKNOWN_USER = "unknown_user"
    """`users` has no such user."""
    LEVEL_OUT_OF_RANGE = "level_out_of_range"
    """The level is below 1 or above the highest level of the specialization."""
    REFUSED_BY_DATABASE = "refused_by_database"
    """A constraint or trigger of the application refused the write; the detail has PostgreSQL's words."""
    TOO_LARGE = "too_large"
    """Larger than what a consumer holds in memory; only its beginning is kept."""


class ContractViolation(Exception):  # noqa: N818 - the contract's own word
    """A record that does not keep the contract: the reason, and a sentence that names the field."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = _short(detail)
        super().__init__(f"{reason.value}: {self.detail}")


def _short(detail: str) -> str:
    """One line that PostgreSQL can store: no NUL, no lone surrogate, 500 characters at most."""
    one_line = " ".join(detail.replace("\0", "\\0").split())
    return one_line.encode("utf-8", "replace").decode()[:500]
