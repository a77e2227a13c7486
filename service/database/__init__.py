"""The PostgreSQL side: engine, faults, the application's tables as found, levelsync's own tables."""
