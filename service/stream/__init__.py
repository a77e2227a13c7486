"""Kafka: consumer, fetches by topic id, positions, producer, lag."""
