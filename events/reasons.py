"""Why a record becomes a dead letter, and pydantic's complaints in one sentence."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError


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


def explain(error: ValidationError) -> ContractViolation:
    """Name the first field that is wrong and what is wrong with it; further ones are only counted."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        return ContractViolation(
            Reason.MALFORMED, f"the value is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        )
    more = f" (and {len(others)} more)" if others else ""
    return ContractViolation(Reason.INVALID, _sentence(".".join(map(str, first["loc"])), first["msg"]) + more)


def _sentence(field: str, message: str) -> str:
    """Start with the field; a rule of our own over several fields names them itself."""
    if message.startswith("Input should"):
        return f"{field or 'the data'}{message.removeprefix('Input')}"
    own = message.removeprefix("Value error, ")
    return f"{field}: {own}" if field else own
