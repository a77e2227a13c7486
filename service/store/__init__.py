"""What levelsync keeps in PostgreSQL as stored code: the only way in which it writes a level."""
