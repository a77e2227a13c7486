"""Where a consumer begins a partition (law 3)."""

from typing import Any

import pytest

from service.stream.positions import Log, Start, Stored, starting_point

HERE = "cluster-a"


def start(committed: int | None, row: int | None, *, first: int = 0, end: int = 1000, cluster: str = HERE) -> Start:
    stored = None if row is None else Stored(row, cluster)
    return starting_point(committed, stored, Log(HERE, "", first, end))


@pytest.mark.parametrize(
    ("committed", "row", "there", "begins"),
    [
        pytest.param(100, 200, {}, Start(seek=100, row=200), id="at the commit, below the row"),
        pytest.param(200, 100, {}, Start(seek=100, row=100), id="at the row, below the commit"),
        pytest.param(None, 500, {"first": 7}, Start(seek=7, row=7, restarts=True), id="again without a commit"),
        pytest.param(500, 500, {"cluster": "b"}, Start(seek=0, row=0, restarts=True), id="again on another cluster"),
        pytest.param(5, 5, {"cluster": ""}, Start(seek=5, row=5), id="at a row that an operator made"),
        pytest.param(500, None, {}, Start(seek=0, row=0), id="at the first record, without a row"),
        pytest.param(2000, 10, {}, Start(seek=0, row=0, restarts=True), id="again where the commit is beyond the end"),
        pytest.param(10, 2000, {}, Start(seek=0, row=0, restarts=True), id="again where the row is beyond the end"),
        pytest.param(100, 100, {"first": 150}, Start(seek=150, row=150, lost=50), id="behind a loss"),
        pytest.param(None, 100, {"first": 150}, Start(150, 150, lost=50, restarts=True), id="again, with a loss"),
        pytest.param(None, 100, {"first": 150, "cluster": "b"}, Start(150, 150, restarts=True), id="again, elsewhere"),
        pytest.param(100, 150, {"first": 150}, Start(seek=150, row=150), id="behind a loss that the row is past"),
        pytest.param(10, 500, {"first": 150}, Start(seek=150, row=500), id="at the log's start, which was applied"),
        pytest.param(150, 150, {"first": 150, "end": 150}, Start(seek=150, row=150), id="at the end of an empty log"),
    ],
)
def test_a_consumer_begins(committed: int | None, row: int | None, there: dict[str, Any], begins: Start) -> None:
    assert start(committed, row, **there) == begins
