"""The Kafka side: connection, producer, topics, consumers, lag."""
