"""The Kafka side: FastStream's broker, a consumer whose position is the database's, topics, lag."""
