"""An embedded PostgreSQL and an embedded Kafka-protocol broker, for `levelsync up`, `levelsync demo` and the tests.

Both come from wheels, and neither is for production. When the process that started a server ends, in any way, the
server ends too (`guard.py`).
"""

from service.local.broker import EmbeddedBroker
from service.local.postgres import EmbeddedPostgres
from service.local.process import EmbeddedError

__all__ = ["EmbeddedBroker", "EmbeddedError", "EmbeddedPostgres"]
