"""Where a consumer begins a partition (law 3): the pure rule."""

import pytest

from service.stream.positions import Log, Start, Stored, starting_point

HERE = "cluster-a"


def start(committed: int | None, row: int | None, *, first: int = 0, end: int = 1000, cluster: str = HERE) -> Start:
    stored = None if row is None else Stored(row, cluster)
    return starting_point(committed, stored, Log(HERE, "", first, end))


def test_a_consumer_begins_at_the_smaller_of_commit_and_row() -> None:
    """Behind either of the two, something may not be applied yet."""
    assert start(100, 200) == Start(seek=100, row=200)
    assert start(200, 100) == Start(seek=100, row=100)


def test_a_group_without_a_commit_begins_anew_at_the_earliest_record() -> None:
    """Its position row restarts too."""
    assert start(None, 500, first=7) == Start(seek=7, row=7, restarts=True)


def test_another_cluster_begins_anew() -> None:
    """Offsets of one cluster say nothing about another's."""
    assert start(500, 500, cluster="cluster-b") == Start(seek=0, row=0, restarts=True)


def test_a_row_of_an_unknown_cluster_counts() -> None:
    """A row that was made by hand carries no cluster."""
    assert start(5, 5, cluster="") == Start(seek=5, row=5)


def test_a_missing_row_reads_everything_again() -> None:
    """A database restored to before its first batch has applied nothing."""
    assert start(500, None) == Start(seek=0, row=0)


@pytest.mark.parametrize(("committed", "row"), [(2000, 10), (10, 2000)])
def test_a_position_beyond_the_end_begins_anew(committed: int, row: int) -> None:
    """The topic was created again, or truncated."""
    assert start(committed, row, end=1000) == Start(seek=0, row=0, restarts=True)


def test_records_below_the_log_start_are_lost() -> None:
    """Retention took what was never applied; the row says where work goes on."""
    assert start(100, 100, first=150) == Start(seek=150, row=150, lost=50)


def test_a_loss_is_found_once() -> None:
    """The row moved past it while the group's commit still lies below: nothing that was not applied is gone."""
    assert start(100, 150, first=150) == Start(seek=150, row=150)


def test_records_that_were_applied_are_not_lost() -> None:
    """A group set back to records that retention has taken since begins at the first that is there."""
    assert start(10, 500, first=150) == Start(seek=150, row=500)


def test_a_partition_emptied_after_it_was_applied_has_lost_nothing() -> None:
    """Its log start equals its end, and both equal the position."""
    assert start(150, 150, first=150, end=150) == Start(seek=150, row=150)
