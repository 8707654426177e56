-- Our own table, schema version 2, on MySQL and MariaDB.
-- The instances that use the table, and when they were last heard of.
CREATE TABLE IF NOT EXISTS `dalga_heartbeats` (
    id         VARBINARY(255)   NOT NULL PRIMARY KEY,
    seen       DATETIME(6)      NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

CREATE TABLE `dalga` (
    id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT PRIMARY KEY,

    -- The job's key: exact bytes, up to 255 characters of UTF-8 each.
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,

    -- When it runs: seconds between two runs, an ISO 8601 duration such as P1M, or a cron
    -- expression; empty for a one-off job.
    schedule   VARCHAR(255)     NOT NULL,
    -- The time zone that calendar intervals and cron expressions go by.
    location   VARCHAR(64)      NOT NULL DEFAULT 'UTC',
    -- What else was asked for, as a JSON object: until, count, catch-up and so on; or empty.
    options    VARCHAR(255)     NOT NULL DEFAULT '',
    -- What intervals are counted from. All times are UTC.
    anchor     DATETIME(6)      NOT NULL,

    -- The time for which the pending (or running) run is scheduled.
    scheduled  DATETIME(6)      NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: not before somebody says so. The job is disabled, has failed, or was set aside.
    due        DATETIME(6)      NULL,

    -- The pending run: half of its id and its beginning, written by its first claim, and how often
    -- it was attempted.
    run        BINARY(16)       NULL,
    started    DATETIME(6)      NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      VARCHAR(255)     NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INT UNSIGNED     NOT NULL DEFAULT 0,
    skipped    INT UNSIGNED     NOT NULL DEFAULT 0,
    -- The last run was given up: 0 no, 1 yes, and the job went on, 2 yes, and the job stopped.
    failed     TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   TINYINT UNSIGNED NOT NULL DEFAULT 0,

    -- The lease: who holds it, until due. Past that it means nothing.
    token      BINARY(16)       NULL,
    -- What the user has said during the lease: 0 nothing, 1 scheduled anew, 2 deleted,
    -- 3 triggered, 4 scheduled anew, to run now. 3 and 4 stay until that run is claimed.
    superseded TINYINT UNSIGNED NOT NULL DEFAULT 0,

    UNIQUE KEY job (path, body),
    KEY due (due)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='dalga schema 2';
