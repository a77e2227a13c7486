"""The transactional outbox: whatever the service publishes is a row first, in the transaction that it tells of."""
