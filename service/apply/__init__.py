"""The path of a record from Kafka to its effect in PostgreSQL: decode, decide, apply, commit (laws 1 to 4)."""
