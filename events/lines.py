"""Events in a file: one structured CloudEvent a line."""

from __future__ import annotations

from datetime import UTC, datetime

from events.base import Event
from events.catalogue import BY_TYPE
from events.diagnosis import parse_json
from events.reading import read
from events.reasons import ContractViolation, Reason
from events.writing import STRUCTURED_CONTENT_TYPE


def read_line(line: str | bytes) -> Event:
    """The event of one line, with its id, source and time.

    Raises:
        ContractViolation: the line does not keep the contract.
    """
    try:
        raw = line.encode() if isinstance(line, str) else line
    except UnicodeEncodeError:
        raise ContractViolation(Reason.MALFORMED, "the line is not UTF-8") from None
    envelope = parse_json(raw)
    kind = envelope.get("type") if isinstance(envelope, dict) else None
    model = BY_TYPE.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ContractViolation(Reason.UNKNOWN_TYPE, f"type {kind!r} is not known")
    headers = [("content-type", STRUCTURED_CONTENT_TYPE.encode())]
    received = read(model.TOPIC, raw, headers, int(datetime.now(UTC).timestamp() * 1000))
    data = received.event.model_dump(exclude_none=True)
    return model(id=received.id, source=received.source, time=received.occurred_at, **data)
