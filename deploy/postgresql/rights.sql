-- Create three roles for levelsync. Each has the rights that it needs and no others.
--
--   levelsync_migrator  runs `levelsync migrate`
--   levelsync_runtime   runs `levelsync serve` and every other command
--   levelsync_reader    reads the views, for dashboards
--
-- Run this file in the application's database as a superuser. The search_path must find the application's tables:
--
--   psql "$SUPERUSERS_URL" -v ON_ERROR_STOP=1 -f deploy/postgresql/rights.sql
--
-- Run it before the first `levelsync migrate`. Run it again afterwards, because the reader's views exist only then. You
-- may run it any number of times. Set the passwords of the roles with \password in psql.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['levelsync_migrator', 'levelsync_runtime', 'levelsync_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        END IF;
    END LOOP;
END $$;

-- The migrator owns the schema levelsync, and has the rights of the owners of the application's tables.
CREATE SCHEMA IF NOT EXISTS levelsync;
ALTER SCHEMA levelsync OWNER TO levelsync_migrator;

DO $$
DECLARE
    owner text;
BEGIN
    FOR owner IN
        SELECT DISTINCT tableowner FROM pg_tables
         WHERE format('%I.%I', schemaname, tablename)::regclass IN (
                   to_regclass('users'), to_regclass('specializations'), to_regclass('specialization_progress'),
                   to_regclass('user_licenses'), to_regclass('license_progressions'))
           AND tableowner <> 'levelsync_migrator'
    LOOP
        EXECUTE format('GRANT %I TO levelsync_migrator', owner);
    END LOOP;
END $$;

-- The runtime uses rows and sequences of the schema levelsync, also of tables that a later release adds.
GRANT USAGE ON SCHEMA levelsync TO levelsync_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA levelsync TO levelsync_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA levelsync TO levelsync_runtime;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA levelsync TO levelsync_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE levelsync_migrator IN SCHEMA levelsync
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO levelsync_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE levelsync_migrator IN SCHEMA levelsync GRANT USAGE ON SEQUENCES TO levelsync_runtime;
ALTER DEFAULT PRIVILEGES FOR ROLE levelsync_migrator IN SCHEMA levelsync
    GRANT EXECUTE ON FUNCTIONS TO levelsync_runtime;

-- The runtime reads and writes rows of the application's tables. It creates, alters and deletes nothing there.
GRANT SELECT ON users, specializations TO levelsync_runtime;
GRANT UPDATE (id) ON users TO levelsync_runtime;  -- only for the lock FOR KEY SHARE; levelsync never writes there
GRANT SELECT, INSERT, UPDATE ON specialization_progress, user_licenses TO levelsync_runtime;
GRANT SELECT, INSERT ON license_progressions TO levelsync_runtime;

DO $$
DECLARE
    found text;
BEGIN
    -- The level tables, if they exist. `levelsync doctor` compares them with the highest levels.
    FOR found IN
        SELECT to_regclass(name)::text FROM unnest(ARRAY['player_levels', 'coach_levels', 'internship_levels']) AS t (name)
         WHERE to_regclass(name) IS NOT NULL
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO levelsync_runtime', found);
    END LOOP;
    -- The sequences of the three tables to which levelsync adds rows. An identity column needs no right.
    FOR found IN
        SELECT pg_get_serial_sequence(name, 'id')
          FROM unnest(ARRAY['specialization_progress', 'user_licenses', 'license_progressions']) AS t (name)
         WHERE pg_get_serial_sequence(name, 'id') IS NOT NULL
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO levelsync_runtime', found);
    END LOOP;
END $$;

-- The reader queries the views. They read the application's tables with the rights of the role that queries them. The
-- reader may not read dead letters, because they contain personal data.
GRANT USAGE ON SCHEMA levelsync TO levelsync_reader;
GRANT SELECT ON specialization_progress, user_licenses TO levelsync_reader;

DO $$
DECLARE
    view text;
BEGIN
    FOREACH view IN ARRAY ARRAY['levelsync.pairs', 'levelsync.drift', 'levelsync.run_summary'] LOOP
        IF to_regclass(view) IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO levelsync_reader', view);
        END IF;
    END LOOP;
END $$;
