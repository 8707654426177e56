-- Our own table, schema version 4, on SQLite.
-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS "dalga_alive_4" (
    id         TEXT    NOT NULL PRIMARY KEY,
    seen       TEXT    NOT NULL
);

-- What a job's user chose beyond the columns of the jobs table, of jobs whose `extras` say that
-- there is some. Each of these tables has the job's key, as on a server.
CREATE TABLE IF NOT EXISTS "dalga_details" (
    -- The id of the job's row.
    id         INTEGER PRIMARY KEY,
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- The method, headers, retries and so on, as a JSON object.
    members    TEXT    NOT NULL,
    -- What is sent in the place of the body. NULL: the body is.
    payload    BLOB    NULL
);

-- The tags of jobs, to find jobs by.
CREATE TABLE IF NOT EXISTS "dalga_tags" (
    tag        TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- The id of the job's row.
    id         INTEGER NOT NULL,

    PRIMARY KEY (tag, path, body)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "dalga_tags_id" ON "dalga_tags" (id);

-- The requests that came with an Idempotency-Key, and the jobs that were made for them.
CREATE TABLE IF NOT EXISTS "dalga_keys" (
    path       TEXT    NOT NULL,
    idempotency TEXT   NOT NULL,
    -- Of the request, so that another request with the same key is told from a repetition.
    digest     BLOB    NOT NULL,
    -- The job's body, which is its generated name, and its `version` as it was made.
    body       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    made       TEXT    NOT NULL,

    PRIMARY KEY (path, idempotency)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "dalga_keys_made" ON "dalga_keys" (made);

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
    -- NULL: no claim takes the row. The job is disabled, has stopped, is done, or was set aside.
    due        TEXT    NULL,

    -- The pending (or running) run: half of its id and the time of its first claim, both written by
    -- that claim, and the number of its attempts.
    run        BLOB    NULL,
    started    TEXT    NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed, why the row was set aside, or which answer disabled the job.
    error      TEXT    NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    -- How the job stands after its last run (`Standing` in model/job.py): 0 SOUND, 1 FAILED,
    -- 2 STOPPED, 3 DONE, 4 ASIDE.
    standing   INTEGER NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   INTEGER NOT NULL DEFAULT 0,

    -- The lease: the token of the claim that holds the row until `due`. After that time the token
    -- means nothing.
    token      BLOB    NULL,
    -- What a user did to the job during the lease (`Override` in rows.py): 0 NONE, 1 RESCHEDULED,
    -- 2 DELETED, 3 TRIGGERED, 4 RUN_NOW. The last two stay until the run is claimed that the user
    -- asked for.
    override   INTEGER NOT NULL DEFAULT 0,

    -- The version of what the user asked for: microseconds since 1970 of the last PUT or PATCH, or
    -- one more than the version before, whichever is larger.
    version    INTEGER NOT NULL DEFAULT 0,
    -- Which rows the job has in other tables (store/extras.py): bits, and a size from bit 8.
    extras     INTEGER NOT NULL DEFAULT 0,

    UNIQUE (path, body)
);

CREATE INDEX IF NOT EXISTS "dalga_due" ON "dalga" (due);

-- Few rows have anything but two zeros here. The lists by state go by these.
CREATE INDEX IF NOT EXISTS "dalga_state" ON "dalga" (disabled, standing)
    WHERE disabled <> 0 OR standing <> 0;

INSERT INTO "dalga" (id, path, body, schedule, anchor, scheduled, due, version, extras) VALUES
    (1, 'check_feed', '1234', '60', '2099-01-01 00:00:00.250000', '2099-01-01 00:00:00.250000',
        '2099-01-01 00:00:00.250000', 4070908800250000, 0),
    (2, 'check_feed', 'tagged', '60', '2099-01-01 00:00:00.000000', '2099-01-01 00:00:00.000000',
        '2099-01-01 00:00:00.000000', 4070908800000000, 263);

INSERT INTO "dalga_details" (id, path, body, members, payload) VALUES
    (2, 'check_feed', 'tagged', '{"payload":"text","tags":["blue"]}', X'68656C6C6F');

INSERT INTO "dalga_tags" (tag, path, body, id) VALUES ('blue', 'check_feed', 'tagged', 2);

-- A claim could not read this row.
INSERT INTO "dalga" (id, path, body, schedule, anchor, scheduled, due, error, standing) VALUES
    (3, 'check_feed', 'aside', 'hourly', '2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000', NULL,
        'interval is ''hourly''', 4);

PRAGMA user_version = 4;
