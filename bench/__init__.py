"""What levelsync takes and gives, measured beside its peers on a real broker and PostgreSQL: `make bench`."""
