"""The systems of the drain: each makes the same licenses of the same events, in a process of its own."""
