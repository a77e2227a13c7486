"""Why somebody does not get what they asked for: each with a sentence for that person, and nothing secret in it."""

from __future__ import annotations


class AdminError(Exception):
    """An answer, not a defect."""

    is_audited = False
    """Whether the audit log has a row of it."""


class NotSignedIn(AdminError):  # noqa: N818 - an answer, as all below
    """No token, or one that is not good (401). Its text says what is wrong with it, never the token."""


class Forbidden(AdminError):  # noqa: N818
    """A known person, without the right (403)."""


class NoSuch(AdminError):  # noqa: N818
    """There is no such user, run or letter (404)."""


class Refused(AdminError):  # noqa: N818
    """It makes no sense as it was asked for (422)."""


class Busy(AdminError):  # noqa: N818
    """The database, or who vouches for tokens, cannot answer now (503): the same again later may succeed."""

    retry_after = 5
    """Seconds."""
