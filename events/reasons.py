"""The reasons why a record becomes a dead letter, and pydantic's errors as one sentence."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError


class Reason(StrEnum):
    """Dead-letter reasons, the same for every topic."""

    MALFORMED = "malformed"
    """The value is not JSON, not UTF-8, or a tombstone."""
    INVALID = "invalid"
    """The attributes or the data do not match the schema."""
    BAD_TIME = "bad_time"
    """`ce_time` cannot be read, is before 2000, or is more than five minutes ahead of the record's timestamp."""
    UNKNOWN_TYPE = "unknown_type"
    """The CloudEvents type is missing or unknown, or it belongs on another topic."""
    UNKNOWN_SPECIALIZATION = "unknown_specialization"
    """`specializations` has no such specialization."""
    UNKNOWN_USER = "unknown_user"
    """`users` has no such user."""
    LEVEL_OUT_OF_RANGE = "level_out_of_range"
    """The level is below 1 or above the highest level of the specialization."""
    REFUSED_BY_DATABASE = "refused_by_database"
    """A constraint or trigger of the application refused the write; the detail has PostgreSQL's message."""
    TOO_LARGE = "too_large"
    """The value is larger than the setting `RECORD_MAX_BYTES`; only its beginning is stored."""


class ContractViolation(Exception):  # noqa: N818 - the contract's own word
    """A record breaks the contract. `reason` is the dead-letter reason, `detail` a sentence that names the field."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = _short(detail)
        super().__init__(f"{reason.value}: {self.detail}")


def _short(detail: str) -> str:
    """Return one line of at most 500 characters that PostgreSQL can store: without NUL and lone surrogates."""
    one_line = " ".join(detail.replace("\0", "\\0").split())
    return one_line.encode("utf-8", "replace").decode()[:500]


def explain(error: ValidationError) -> ContractViolation:
    """Return a violation that names the first wrong field and what is wrong with it, and counts the others."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        return ContractViolation(
            Reason.MALFORMED, f"the value is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        )
    more = f" (and {len(others)} more)" if others else ""
    return ContractViolation(Reason.INVALID, _sentence(".".join(map(str, first["loc"])), first["msg"]) + more)


def _sentence(field: str, message: str) -> str:
    """Put the field before the message. A rule over several fields names them in its own message."""
    if message.startswith("Input should"):
        return f"{field or 'the data'}{message.removeprefix('Input')}"
    own = message.removeprefix("Value error, ")
    return f"{field}: {own}" if field else own
