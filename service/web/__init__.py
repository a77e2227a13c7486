"""HTTP: the endpoints for health and metrics, the admin API, and the operations page."""
