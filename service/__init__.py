"""levelsync's service: appliers, reconciler, relay, API and commands. See docs/architecture.md."""
