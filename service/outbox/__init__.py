"""The outbox: a transaction writes the events that describe it into a table, and a relay publishes them to Kafka."""
