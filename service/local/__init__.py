"""PostgreSQL and a Kafka-protocol broker from wheels, for `levelsync up`, `levelsync demo` and the tests.

Never for production. Neither leaves a process behind, whatever ends the one that started it (`guard.py`).
"""

from service.local.broker import EmbeddedBroker
from service.local.postgres import EmbeddedPostgres
from service.local.process import EmbeddedError

__all__ = ["EmbeddedBroker", "EmbeddedError", "EmbeddedPostgres"]
