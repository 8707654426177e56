-- Our own table, schema version 4, on MySQL and MariaDB.
-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS `dalga_alive_4` (
    id         VARBINARY(255)   NOT NULL PRIMARY KEY,
    seen       DATETIME(6)      NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- What a job's user chose beyond the columns of the jobs table, of jobs whose `extras` say that
-- there is some. Each of these tables has the job's key, so that its rows can live beside the job's.
CREATE TABLE IF NOT EXISTS `dalga_details` (
    -- The id of the job's row.
    id         BIGINT UNSIGNED  NOT NULL PRIMARY KEY,
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,
    -- The method, headers, retries and so on, as a JSON object.
    members    MEDIUMTEXT       NOT NULL,
    -- What is sent in the place of the body. NULL: the body is.
    payload    MEDIUMBLOB       NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- The tags of jobs, to find jobs by: exact bytes, up to 64 characters of UTF-8 each.
CREATE TABLE IF NOT EXISTS `dalga_tags` (
    tag        VARBINARY(256)   NOT NULL,
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,
    -- The id of the job's row.
    id         BIGINT UNSIGNED  NOT NULL,

    PRIMARY KEY (tag, path, body),
    KEY id (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- The requests that came with an Idempotency-Key, and the jobs that were made for them.
CREATE TABLE IF NOT EXISTS `dalga_keys` (
    path       VARBINARY(1020)  NOT NULL,
    idempotency VARBINARY(255)  NOT NULL,
    -- Of the request, so that another request with the same key is told from a repetition.
    digest     BINARY(32)       NOT NULL,
    -- The job's body, which is its generated name, and its `version` as it was made.
    body       VARBINARY(1020)  NOT NULL,
    version    BIGINT UNSIGNED  NOT NULL,
    made       DATETIME(6)      NOT NULL,

    PRIMARY KEY (path, idempotency),
    KEY made (made)
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
    -- NULL: no claim takes the row. The job is disabled, has stopped, is done, or was set aside.
    due        DATETIME(6)      NULL,

    -- The pending (or running) run: half of its id and the time of its first claim, both written by
    -- that claim, and the number of its attempts.
    run        BINARY(16)       NULL,
    started    DATETIME(6)      NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    -- Why the last attempt failed, why the row was set aside, or which answer disabled the job.
    error      VARCHAR(255)     NULL,

    -- Runs that succeeded, and runs that were skipped as too late, since the job was scheduled.
    successes  INT UNSIGNED     NOT NULL DEFAULT 0,
    skipped    INT UNSIGNED     NOT NULL DEFAULT 0,
    -- How the job stands after its last run (`Standing` in model/job.py): 0 SOUND, 1 FAILED,
    -- 2 STOPPED, 3 DONE, 4 ASIDE.
    standing   TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- 1: the job does not run until it is enabled again.
    disabled   TINYINT UNSIGNED NOT NULL DEFAULT 0,

    -- The lease: the token of the claim that holds the row until `due`. After that time the token
    -- means nothing.
    token      BINARY(16)       NULL,
    -- What a user did to the job during the lease (`Override` in rows.py): 0 NONE, 1 RESCHEDULED,
    -- 2 DELETED, 3 TRIGGERED, 4 RUN_NOW. The last two stay until the run is claimed that the user
    -- asked for.
    override   TINYINT UNSIGNED NOT NULL DEFAULT 0,

    -- The version of what the user asked for: microseconds since 1970 of the last PUT or PATCH, or
    -- one more than the version before, whichever is larger.
    version    BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    -- Which rows the job has in other tables (store/extras.py): bits, and a size from bit 8.
    extras     INT UNSIGNED     NOT NULL DEFAULT 0,

    UNIQUE KEY job (path, body),
    KEY due (due),
    -- Few rows have anything but two zeros here. The lists by state go by these.
    KEY state (disabled, standing)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='dalga schema 4';

INSERT INTO `dalga` (id, path, body, schedule, anchor, scheduled, due, version, extras) VALUES
    (1, 'check_feed', '1234', '60', '2099-01-01 00:00:00.250000', '2099-01-01 00:00:00.250000',
        '2099-01-01 00:00:00.250000', 4070908800250000, 0),
    (2, 'check_feed', 'tagged', '60', '2099-01-01 00:00:00.000000', '2099-01-01 00:00:00.000000',
        '2099-01-01 00:00:00.000000', 4070908800000000, 263);

INSERT INTO `dalga_details` (id, path, body, members, payload) VALUES
    (2, 'check_feed', 'tagged', '{"payload":"text","tags":["blue"]}', X'68656C6C6F');

INSERT INTO `dalga_tags` (tag, path, body, id) VALUES ('blue', 'check_feed', 'tagged', 2);

-- A claim could not read this row.
INSERT INTO `dalga` (id, path, body, schedule, anchor, scheduled, due, error, standing) VALUES
    (3, 'check_feed', 'aside', 'hourly', '2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000', NULL,
        'interval is ''hourly''', 4);
