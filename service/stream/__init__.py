"""Kafka: connections, consumer, fetches by topic id, positions, producer, topics and lag."""
