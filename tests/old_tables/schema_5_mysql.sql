-- Our own table, schema version 5, on MySQL and MariaDB.
-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS `dalga_alive_5` (
    id         VARBINARY(255)   NOT NULL PRIMARY KEY,
    seen       DATETIME(6)      NOT NULL,
    -- When the instance started. NULL until it says so.
    since      DATETIME(6)      NULL,
    -- What else it says of itself, as a JSON object: its version, its slots, and so on.
    about      VARCHAR(1024)    NOT NULL DEFAULT ''
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

-- The records of runs: one of each run that has ended, and one of each run that has failed and waits
-- for its next attempt.
CREATE TABLE IF NOT EXISTS `dalga_runs` (
    -- The shelf (`Shelf` in model/record.py): 0 FINE, 1 FAILED, 2 OPEN. Each is pruned by itself.
    failed     TINYINT UNSIGNED NOT NULL,
    -- When the record was written: microseconds since 1970 by the database's clock. 0: OPEN.
    at         BIGINT UNSIGNED  NOT NULL,
    -- The id of the job's row.
    job        BIGINT UNSIGNED  NOT NULL,
    -- Half of the run's id; the other half is `job`.
    run        BINARY(16)       NOT NULL,
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,
    -- 63 bits of checksums of the path, and of path and body, for narrow indexes.
    pathkey    BIGINT           NOT NULL,
    jobkey     BIGINT           NOT NULL,
    endpoint   VARBINARY(255)   NOT NULL,
    -- Why there was this run (`Cause` in model/run.py).
    cause      TINYINT UNSIGNED NOT NULL,
    -- What it came to (`Result` in model/record.py). NULL: OPEN.
    result     TINYINT UNSIGNED NULL,
    -- The status of the last answer, and what went wrong (`ErrorKind` in model/attempt.py; 0:
    -- nothing).
    status     SMALLINT UNSIGNED NULL,
    kind       TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- The time that the run is of; when the run was claimed first; when its first POST began, and
    -- when its last POST ended (both NULL: there was none).
    scheduled  DATETIME(6)      NOT NULL,
    claimed    DATETIME(6)      NOT NULL,
    started    DATETIME(6)      NULL,
    ended      DATETIME(6)      NULL,
    -- Of the first attempt's start, in milliseconds.
    lateness   BIGINT           NOT NULL,
    attempts   INT UNSIGNED     NOT NULL,
    -- The instance that made the last attempt.
    instance   VARBINARY(255)   NOT NULL,
    error      VARCHAR(255)     NULL,
    -- The attempts and what else is known, as a JSON object. NULL: nothing beyond the columns.
    more       MEDIUMTEXT       NULL,
    -- The answer's head and body, as far as they are kept, as a JSON object, apart from `more`: lists
    -- do not read it. NULL: nothing is kept.
    answer     MEDIUMTEXT       NULL,

    PRIMARY KEY (failed, at, job),
    KEY run (run),
    KEY jobruns (jobkey, failed, at, job),
    KEY pathruns (pathkey, failed, at, job)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- Alerts that are to be sent, and those that were sent lately.
CREATE TABLE IF NOT EXISTS `dalga_alerts` (
    -- Begins with the time at which it was made, in milliseconds since 1970. The rest is random.
    id         BINARY(16)       NOT NULL PRIMARY KEY,
    event      VARCHAR(32)      NOT NULL,
    endpoint   VARBINARY(255)   NOT NULL,
    -- The job that it is about, if it is about one.
    path       VARBINARY(1020)  NULL,
    body       VARBINARY(1020)  NULL,
    -- The name of where it is sent to.
    target     VARBINARY(255)   NOT NULL,
    made       DATETIME(6)      NOT NULL,
    -- When it may next be taken, as in the jobs table. NULL: it is over.
    due        DATETIME(6)      NULL,
    token      BINARY(16)       NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    sent       DATETIME(6)      NULL,
    -- Why the last attempt failed.
    error      VARCHAR(255)     NULL,
    -- What is sent, as a JSON object.
    content    MEDIUMTEXT       NOT NULL,

    KEY alertdue (due),
    KEY alertsent (endpoint, sent)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- The incidents that are open and are of no single job, such as "endpoint.down billing".
CREATE TABLE IF NOT EXISTS `dalga_incidents` (
    name       VARBINARY(255)   NOT NULL PRIMARY KEY,
    since      DATETIME(6)      NOT NULL,
    -- The instance that noticed it, and a random part.
    instance   VARBINARY(255)   NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- Jobs that are to succeed now and then, and until when the next success is waited for.
CREATE TABLE IF NOT EXISTS `dalga_expected` (
    -- The id of the job's row.
    id         BIGINT UNSIGNED  NOT NULL PRIMARY KEY,
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,
    -- When the job is silent. NULL: that has been said.
    silent     DATETIME(6)      NULL,

    KEY silent (silent)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- Sums of runs by minutes, and by hours later on.
CREATE TABLE IF NOT EXISTS `dalga_stats` (
    -- 0: the sums of an endpoint, with an empty path. 1: the sums of a path, or, with an empty
    -- path, of all paths that have no row of their own.
    scope      TINYINT UNSIGNED NOT NULL,
    -- How long a time it is about, in seconds, and when that began.
    step       INT UNSIGNED     NOT NULL,
    at         DATETIME(6)      NOT NULL,
    endpoint   VARBINARY(255)   NOT NULL,
    path       VARBINARY(1020)  NOT NULL,
    -- `Result` in model/record.py.
    result     TINYINT UNSIGNED NOT NULL,
    -- The instance whose runs they are; empty for those of all instances.
    instance   VARBINARY(255)   NOT NULL,
    runs       BIGINT UNSIGNED  NOT NULL,
    attempts   BIGINT UNSIGNED  NOT NULL,
    -- Histograms.
    lateness   TEXT             NOT NULL,
    duration   TEXT             NOT NULL,

    PRIMARY KEY (scope, step, at, endpoint, path, result, instance)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;

-- What was asked to be done to many jobs or runs, and how far that has come.
CREATE TABLE IF NOT EXISTS `dalga_actions` (
    -- A ULID.
    id         VARBINARY(26)    NOT NULL PRIMARY KEY,
    made       DATETIME(6)      NOT NULL,
    ended      DATETIME(6)      NULL,
    -- When the next batch may be made. NULL: it is over.
    due        DATETIME(6)      NULL,
    token      BINARY(16)       NULL,
    instance   VARBINARY(255)   NULL,
    -- As a JSON object.
    request    MEDIUMTEXT       NOT NULL,
    state      VARCHAR(16)      NOT NULL,
    matched    BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    done       BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    failed     BIGINT UNSIGNED  NOT NULL DEFAULT 0,
    -- Where it goes on.
    place      MEDIUMTEXT       NOT NULL,
    error      VARCHAR(255)     NULL,

    KEY actiondue (due)
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

    -- Attempts that failed, one after the other, since the last success.
    streak     INT UNSIGNED     NOT NULL DEFAULT 0,
    -- What has been said of the incident that is open: bits (model/streak.py).
    alerted    TINYINT UNSIGNED NOT NULL DEFAULT 0,
    -- Why there is the pending (or running) run (`Cause` in model/run.py): 0 SCHEDULE, 1 MANUAL,
    -- 2 REPLAY.
    cause      TINYINT UNSIGNED NOT NULL DEFAULT 0,

    UNIQUE KEY job (path, body),
    KEY due (due),
    -- Few rows have anything but two zeros here. The lists by state go by these.
    KEY state (disabled, standing)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='dalga schema 5';
