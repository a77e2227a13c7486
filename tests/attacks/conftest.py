"""Fixtures of the attacks: those of the end-to-end tests."""

from tests.service.conftest import consumers, database, log, scene

__all__ = ["consumers", "database", "log", "scene"]
