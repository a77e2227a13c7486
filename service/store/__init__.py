"""PostgreSQL: engine, faults, tables, migrations, and the stored functions that alone write a level."""
