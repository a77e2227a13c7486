"""The parts of the benchmark: each measures its rows of the table (`bench.table`)."""
