"""The parts of the benchmark. Each returns the rows of its table (`bench.table`)."""
