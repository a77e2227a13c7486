"""Benchmarks of levelsync and of the alternatives to it, on a real broker and PostgreSQL: `make bench`."""
