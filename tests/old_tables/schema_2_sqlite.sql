-- Our own table, schema version 2, on SQLite.
-- The instances that use the table, and when they were last heard of.
CREATE TABLE IF NOT EXISTS "dalga_heartbeats" (
    id         TEXT    NOT NULL PRIMARY KEY,
    seen       TEXT    NOT NULL
);

CREATE TABLE IF NOT EXISTS "dalga" (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,

    -- The job's key: compared as exact bytes.
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,

    -- When it runs: seconds between two runs, an ISO 8601 duration such as P1M, or a cron
    -- expression; empty for a one-off job.
    schedule   TEXT    NOT NULL,
    -- The time zone that calendar intervals and cron expressions go by.
    location   TEXT    NOT NULL DEFAULT 'UTC',
    -- What else was asked for, as a JSON object: until, count, catch-up and so on; or empty.
    options    TEXT    NOT NULL DEFAULT '',
    -- What intervals are counted from. All times are UTC, as YYYY-MM-DD HH:MM:SS.ffffff, which
    -- sorts as it should.
    anchor     TEXT    NOT NULL,

    -- The time for which the pending (or running) run is scheduled.
    scheduled  TEXT    NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: not before somebody says so. The job is disabled, has failed, or was set aside.
    due        TEXT    NULL,

    -- The pending run: half of its id and its beginning, written by its first claim, and how often
    -- it was attempted.
    run        BLOB    NULL,
    started    TEXT    NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      TEXT    NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    -- The last run was given up: 0 no, 1 yes, and the job went on, 2 yes, and the job stopped.
    failed     INTEGER NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   INTEGER NOT NULL DEFAULT 0,

    -- The lease: who holds it, until due. Past that it means nothing.
    token      BLOB    NULL,
    -- What the user has said during the lease: 0 nothing, 1 scheduled anew, 2 deleted,
    -- 3 triggered, 4 scheduled anew, to run now. 3 and 4 stay until that run is claimed.
    superseded INTEGER NOT NULL DEFAULT 0,

    UNIQUE (path, body)
);

CREATE INDEX IF NOT EXISTS "dalga_due" ON "dalga" (due);
PRAGMA user_version = 2;
