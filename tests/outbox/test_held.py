"""What is held back, and what is only tried again."""

import pytest
from aiokafka.errors import MessageSizeTooLargeError, NotEnoughReplicasError, TopicAuthorizationFailedError

from service.outbox.publish import HeldBack
from service.outbox.put import Row

ROWS = [Row(number, "topic", b"key", b"{}", []) for number in (1, 2, 3)]


def test_a_row_is_held_back_only_when_it_was_refused_alone() -> None:
    """Kafka refuses a whole batch of records for one of them: they leave one by one until it is found."""
    back = HeldBack()
    back.sort({row: MessageSizeTooLargeError() for row in ROWS})
    assert back.rows == set()
    assert back.one_by_one_upto == 3
    back.sort({ROWS[1]: MessageSizeTooLargeError()})
    assert back.rows == {2}


def test_what_may_pass_holds_nothing_back() -> None:
    """It is published again in its order."""
    back = HeldBack()
    back.sort({row: NotEnoughReplicasError() for row in ROWS})
    assert (back.rows, back.one_by_one_upto, back.topics()) == (set(), 0, {})


def test_a_topic_without_rights_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row of it is given up."""
    back = HeldBack()
    back.sort({ROWS[0]: TopicAuthorizationFailedError("topic")})
    assert set(back.topics()) == {"topic"}
    monkeypatch.setattr("service.outbox.publish.time.monotonic", lambda: float("inf"))
    assert back.topics() == {}
    assert back.rows == set()
