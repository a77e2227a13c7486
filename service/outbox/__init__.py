"""The outbox: events are put into a table in the transaction that they describe, and a relay brings them to Kafka."""
