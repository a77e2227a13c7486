"""PostgreSQL: engine, tables, migrations, and the stored functions through which every level is written."""
