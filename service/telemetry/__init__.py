"""The metrics, the health and the logs of a process."""
