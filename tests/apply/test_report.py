"""How a batch reports its dead letters."""

from __future__ import annotations

from aiokafka import ConsumerRecord
from structlog.testing import capture_logs

from events import Reason
from service.apply.batch import Applied
from service.apply.role import report_batch
from service.core.outcomes import DeadLetter
from service.stream.positions import Batch

TOPIC = "progress.leveled-up"


def test_a_batch_of_a_thousand_dead_letters_is_one_warning() -> None:
    records = [ConsumerRecord(TOPIC, 2, offset, 0, 0, None, b"", None, 0, 0, ()) for offset in range(1000)]
    letters = [DeadLetter(index, Reason.MALFORMED, f"no JSON {index}") for index in range(1000)]
    with capture_logs() as lines:
        report_batch(Batch(records, {}, {}), Applied(letters, {}, letters), 0.1)
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert (warning["event"], warning["topic"], warning["count"]) == ("dead letters", TOPIC, 1000)
    assert warning["first"] == [
        {"partition": 2, "offset": number, "reason": "malformed", "detail": f"no JSON {number}"} for number in range(3)
    ]
