"""Twenty users' records refused in a row are the installation's fault, not the records' (law 4)."""

import pytest

from service.apply.progress import Refusals
from service.faults import Fault, InstallationFault, Kind

CHECK = Fault(Kind.RECORD, "23514", "level_is_small", "violates check constraint")
TRIGGER = Fault(Kind.RECORD, "P0001", "", "no")


def test_twenty_users_in_a_row_are_the_installations_fault() -> None:
    """The twentieth names the SQLSTATE and the constraint."""
    refusals = Refusals()
    for user in range(19):
        refusals.refused(user, CHECK)
    with pytest.raises(InstallationFault, match="23514, constraint level_is_small"):
        refusals.refused(19, CHECK)


def test_one_users_many_records_are_not() -> None:
    """A user with a bad row stays one user."""
    refusals = Refusals()
    for _ in range(100):
        refusals.refused(7, CHECK)
    assert refusals.users == {7}


def test_an_accepted_record_or_another_reason_breaks_the_row() -> None:
    """In a row means: nothing else between."""
    refusals = Refusals()
    for user in range(19):
        refusals.refused(user, CHECK)
    refusals.accepted()
    refusals.refused(19, CHECK)
    refusals.refused(20, TRIGGER)
    assert refusals.users == {20}


def test_counting_on_a_copy_leaves_the_original() -> None:
    """A transaction that is rolled back has refused nothing."""
    refusals = Refusals()
    refusals.copy().refused(1, CHECK)
    assert refusals.users == set()
