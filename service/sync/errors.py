"""What a caller asked for that cannot be: sentences for the person who asked."""

from __future__ import annotations


class SyncRefused(Exception):  # noqa: N818 - an answer, not a defect
    """A sync that makes no sense as it was asked for. Its text says why."""


class UnknownSpecialization(SyncRefused):
    """`specializations` has no such row."""


class UnknownUser(SyncRefused):
    """`users` has no such row."""


class LevelOutOfRange(SyncRefused):
    """The level to be written is none of the specialization's."""


class UnknownDirection(SyncRefused):
    """There are three directions."""
