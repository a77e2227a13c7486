"""PostgreSQL and a Kafka-protocol broker from wheels, for `levelsync up`, `levelsync demo` and the tests.

Never for production. Neither leaves a process behind, whatever ends the one that started it (`guard.py`).
"""

from service.embedded.broker import EmbeddedBroker
from service.embedded.postgres import EmbeddedPostgres
from service.embedded.process import EmbeddedError

__all__ = ["EmbeddedBroker", "EmbeddedError", "EmbeddedPostgres"]
