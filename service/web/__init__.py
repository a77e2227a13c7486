"""HTTP: health and metrics, the admin API, the operations page."""
