"""The systems of the drain. Each creates the same licenses from the same events, in a separate process."""
