-- Our own table, schema version 3, on MySQL and MariaDB.
-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS `dalga_alive_3` (
    id         VARBINARY(255)   NOT NULL PRIMARY KEY,
    seen       DATETIME(6)      NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

CREATE TABLE `dalga` (
    id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT PRIMARY KEY,

    -- The job's key: exact bytes, up to 255 characters of UTF-8 each.
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,

    -- The job's schedule: seconds between two runs, an ISO 8601 duration such as P1M, or a cron
    -- expression; empty for a one-off job.
    schedule   VARCHAR(255)     NOT NULL,
    -- The time zone of calendar intervals and cron expressions.
    location   VARCHAR(64)      NOT NULL DEFAULT 'UTC',
    -- The job's other parameters, as a JSON object: until, count, catch-up and so on; or empty.
    options    VARCHAR(1024)    NOT NULL DEFAULT '',
    -- Intervals are counted from this time. All times are UTC, by the database's clock.
    anchor     DATETIME(6)      NOT NULL,

    -- The time for which the pending (or running) run is scheduled.
    scheduled  DATETIME(6)      NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: no claim takes the row. The job is disabled, has failed, or was set aside.
    due        DATETIME(6)      NULL,

    -- The pending (or running) run: half of its id and the time of its first claim, both written by
    -- that claim, and the number of its attempts.
    run        BINARY(16)       NULL,
    started    DATETIME(6)      NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      VARCHAR(255)     NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INT UNSIGNED     NOT NULL DEFAULT 0,
    skipped    INT UNSIGNED     NOT NULL DEFAULT 0,
    -- Whether the last run was given up: 0 no; 1 yes, and the job went on; 2 yes, and the job
    -- stopped.
    failed     TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   TINYINT UNSIGNED NOT NULL DEFAULT 0,

    -- The lease: the token of the claim that holds the row until `due`. After that time the token
    -- means nothing.
    token      BINARY(16)       NULL,
    -- What a user did to the job during the lease (`Override` in rows.py): 0 NONE, 1 RESCHEDULED,
    -- 2 DELETED, 3 TRIGGERED, 4 RUN_NOW. The last two stay until the run is claimed that the user
    -- asked for.
    override   TINYINT UNSIGNED NOT NULL DEFAULT 0,

    UNIQUE KEY job (path, body),
    KEY due (due)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='dalga schema 3';

INSERT INTO `dalga` (id, path, body, schedule, anchor, scheduled, due) VALUES
    (1, 'check_feed', '1234', '60', '2099-01-01 00:00:00.25', '2099-01-01 00:00:00.25',
        '2099-01-01 00:00:00.25');

-- A claim could not read this row.
INSERT INTO `dalga` (id, path, body, schedule, anchor, scheduled, due, error) VALUES
    (2, 'check_feed', 'aside', 'hourly', '2020-01-01 00:00:00', '2020-01-01 00:00:00', NULL,
        'interval is ''hourly''');
