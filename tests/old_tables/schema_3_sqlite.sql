-- Our own table, schema version 3, on SQLite.
-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS "dalga_alive_3" (
    id         TEXT    NOT NULL PRIMARY KEY,
    seen       TEXT    NOT NULL
);

CREATE TABLE IF NOT EXISTS "dalga" (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,

    -- The job's key: compared as exact bytes.
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,

    -- The job's schedule: seconds between two runs, an ISO 8601 duration such as P1M, or a cron
    -- expression; empty for a one-off job.
    schedule   TEXT    NOT NULL,
    -- The time zone of calendar intervals and cron expressions.
    location   TEXT    NOT NULL DEFAULT 'UTC',
    -- The job's other parameters, as a JSON object: until, count, catch-up and so on; or empty.
    options    TEXT    NOT NULL DEFAULT '',
    -- Intervals are counted from this time. All times are UTC, by the machine's clock, as
    -- YYYY-MM-DD HH:MM:SS.ffffff: the order of such texts is the order of the times.
    anchor     TEXT    NOT NULL,

    -- The time for which the pending (or running) run is scheduled.
    scheduled  TEXT    NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: no claim takes the row. The job is disabled, has failed, or was set aside.
    due        TEXT    NULL,

    -- The pending (or running) run: half of its id and the time of its first claim, both written by
    -- that claim, and the number of its attempts.
    run        BLOB    NULL,
    started    TEXT    NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      TEXT    NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    -- Whether the last run was given up: 0 no; 1 yes, and the job went on; 2 yes, and the job
    -- stopped.
    failed     INTEGER NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   INTEGER NOT NULL DEFAULT 0,

    -- The lease: the token of the claim that holds the row until `due`. After that time the token
    -- means nothing.
    token      BLOB    NULL,
    -- What a user did to the job during the lease (`Override` in rows.py): 0 NONE, 1 RESCHEDULED,
    -- 2 DELETED, 3 TRIGGERED, 4 RUN_NOW. The last two stay until the run is claimed that the user
    -- asked for.
    override   INTEGER NOT NULL DEFAULT 0,

    UNIQUE (path, body)
);

CREATE INDEX IF NOT EXISTS "dalga_due" ON "dalga" (due);

INSERT INTO "dalga" (id, path, body, schedule, anchor, scheduled, due) VALUES
    (1, 'check_feed', '1234', '60', '2099-01-01 00:00:00.250000', '2099-01-01 00:00:00.250000',
        '2099-01-01 00:00:00.250000');

-- A claim could not read this row.
INSERT INTO "dalga" (id, path, body, schedule, anchor, scheduled, due, error) VALUES
    (2, 'check_feed', 'aside', 'hourly', '2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000', NULL,
        'interval is ''hourly''');

PRAGMA user_version = 3;
