-- The instances (daemons) that use the jobs table, and the time of each one's last heartbeat.
CREATE TABLE IF NOT EXISTS "{heartbeats}" (
    id         TEXT    NOT NULL PRIMARY KEY,
    seen       TEXT    NOT NULL,
    -- When the instance started. NULL until it says so.
    since      TEXT    NULL,
    -- What else it says of itself, as a JSON object: its version, its slots, and so on.
    about      TEXT    NOT NULL DEFAULT ''
);

-- What a job's user chose beyond the columns of the jobs table, of jobs whose `extras` say that
-- there is some. Each of these tables has the job's key, as on a server.
CREATE TABLE IF NOT EXISTS "{details}" (
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
CREATE TABLE IF NOT EXISTS "{tags}" (
    tag        TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- The id of the job's row.
    id         INTEGER NOT NULL,

    PRIMARY KEY (tag, path, body)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "{tags}_id" ON "{tags}" (id);

-- The requests that came with an Idempotency-Key, and the jobs that were made for them.
CREATE TABLE IF NOT EXISTS "{keys}" (
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

CREATE INDEX IF NOT EXISTS "{keys}_made" ON "{keys}" (made);

-- The records of runs: one of each run that has ended, and one of each run that has failed and waits
-- for its next attempt.
CREATE TABLE IF NOT EXISTS "{runs}" (
    -- The shelf (`Shelf` in model/record.py): 0 FINE, 1 FAILED, 2 OPEN. Each is pruned by itself.
    failed     INTEGER NOT NULL,
    -- When the record was written: microseconds since 1970 by the database's clock. 0: OPEN.
    at         INTEGER NOT NULL,
    -- The id of the job's row.
    job        INTEGER NOT NULL,
    -- Half of the run's id; the other half is `job`.
    run        BLOB    NOT NULL,
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- 63 bits of checksums of the path, and of path and body, for narrow indexes.
    pathkey    INTEGER NOT NULL,
    jobkey     INTEGER NOT NULL,
    endpoint   TEXT    NOT NULL,
    -- Why there was this run (`Cause` in model/run.py).
    cause      INTEGER NOT NULL,
    -- What it came to (`Result` in model/record.py). NULL: OPEN.
    result     INTEGER NULL,
    -- The status of the last answer, and what went wrong (`ErrorKind` in model/attempt.py; 0:
    -- nothing).
    status     INTEGER NULL,
    kind       INTEGER NOT NULL DEFAULT 0,
    -- The time that the run is of; when the run was claimed first; when its first POST began, and
    -- when its last POST ended (both NULL: there was none).
    scheduled  TEXT    NOT NULL,
    claimed    TEXT    NOT NULL,
    started    TEXT    NULL,
    ended      TEXT    NULL,
    -- Of the first attempt's start, in milliseconds.
    lateness   INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    -- The instance that made the last attempt.
    instance   TEXT    NOT NULL,
    error      TEXT    NULL,
    -- The attempts and what else is known, as a JSON object. NULL: nothing beyond the columns.
    more       TEXT    NULL,
    -- The answer's head and body, as far as they are kept, as a JSON object, apart from `more`: lists
    -- do not read it. NULL: nothing is kept.
    answer     TEXT    NULL,

    PRIMARY KEY (failed, at, job)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "{runs}_run" ON "{runs}" (run);

CREATE INDEX IF NOT EXISTS "{runs}_jobruns" ON "{runs}" (jobkey, failed, at, job);

CREATE INDEX IF NOT EXISTS "{runs}_pathruns" ON "{runs}" (pathkey, failed, at, job);

-- Alerts that are to be sent, and those that were sent lately.
CREATE TABLE IF NOT EXISTS "{alerts}" (
    -- Begins with the time at which it was made, in milliseconds since 1970. The rest is random.
    id         BLOB    NOT NULL PRIMARY KEY,
    event      TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    -- The job that it is about, if it is about one.
    path       TEXT    NULL,
    body       TEXT    NULL,
    -- The name of where it is sent to.
    target     TEXT    NOT NULL,
    made       TEXT    NOT NULL,
    -- When it may next be taken, as in the jobs table. NULL: it is over.
    due        TEXT    NULL,
    token      BLOB    NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    sent       TEXT    NULL,
    -- Why the last attempt failed.
    error      TEXT    NULL,
    -- What is sent, as a JSON object.
    content    TEXT    NOT NULL
);

CREATE INDEX IF NOT EXISTS "{alerts}_alertdue" ON "{alerts}" (due);

CREATE INDEX IF NOT EXISTS "{alerts}_alertsent" ON "{alerts}" (endpoint, sent);

-- The incidents that are open and are of no single job, such as "endpoint.down billing".
CREATE TABLE IF NOT EXISTS "{incidents}" (
    name       TEXT    NOT NULL PRIMARY KEY,
    since      TEXT    NOT NULL,
    -- The instance that noticed it, and a random part.
    instance   TEXT    NOT NULL
) WITHOUT ROWID;

-- Jobs that are to succeed now and then, and until when the next success is waited for.
CREATE TABLE IF NOT EXISTS "{expected}" (
    -- The id of the job's row.
    id         INTEGER PRIMARY KEY,
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    -- When the job is silent. NULL: that has been said.
    silent     TEXT    NULL
);

CREATE INDEX IF NOT EXISTS "{expected}_silent" ON "{expected}" (silent);

-- Sums of runs by minutes, and by hours later on.
CREATE TABLE IF NOT EXISTS "{stats}" (
    -- 0: the sums of an endpoint, with an empty path. 1: the sums of a path, or, with an empty
    -- path, of all paths that have no row of their own.
    scope      INTEGER NOT NULL,
    -- How long a time it is about, in seconds, and when that began.
    step       INTEGER NOT NULL,
    at         TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    -- `Result` in model/record.py.
    result     INTEGER NOT NULL,
    -- The instance whose runs they are; empty for those of all instances.
    instance   TEXT    NOT NULL,
    runs       INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    -- Histograms.
    lateness   TEXT    NOT NULL,
    duration   TEXT    NOT NULL,

    PRIMARY KEY (scope, step, at, endpoint, path, result, instance)
) WITHOUT ROWID;

-- What was asked to be done to many jobs or runs, and how far that has come.
CREATE TABLE IF NOT EXISTS "{actions}" (
    -- A ULID.
    id         TEXT    NOT NULL PRIMARY KEY,
    made       TEXT    NOT NULL,
    ended      TEXT    NULL,
    -- When the next batch may be made. NULL: it is over.
    due        TEXT    NULL,
    token      BLOB    NULL,
    instance   TEXT    NULL,
    -- As a JSON object.
    request    TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    matched    INTEGER NOT NULL DEFAULT 0,
    done       INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    -- Where it goes on.
    place      TEXT    NOT NULL,
    error      TEXT    NULL
);

CREATE INDEX IF NOT EXISTS "{actions}_actiondue" ON "{actions}" (due);

-- What was changed by whom, of requests that came with a token.
CREATE TABLE IF NOT EXISTS "{audit}" (
    -- When the change was made: microseconds since 1970 by the database's clock.
    at         INTEGER NOT NULL,
    -- Random: tells entries of the same moment apart.
    nonce      INTEGER NOT NULL,
    -- The name of the token, and the client's address.
    author     TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    -- What was done (`Verb` in model/audit.py).
    verb       TEXT    NOT NULL,
    -- The job's key, and the checksum of it that the table of runs has. NULL: it is of no one job.
    path       TEXT    NULL,
    body       TEXT    NULL,
    jobkey     INTEGER NULL,
    -- The id of the action that did it, or that was begun or stopped. NULL: none.
    action     TEXT    NULL,
    -- What was there before, and after, as JSON objects without secrets. NULL: nothing.
    old        TEXT    NULL,
    new        TEXT    NULL,

    PRIMARY KEY (at, nonce)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS "{audit}_auditjob" ON "{audit}" (jobkey, at, nonce);

CREATE TABLE IF NOT EXISTS "{table}" (
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

    -- Attempts that failed, one after the other, since the last success.
    streak     INTEGER NOT NULL DEFAULT 0,
    -- What has been said of the incident that is open: bits (model/streak.py).
    alerted    INTEGER NOT NULL DEFAULT 0,
    -- Why there is the pending (or running) run (`Cause` in model/run.py): 0 SCHEDULE, 1 MANUAL,
    -- 2 REPLAY.
    cause      INTEGER NOT NULL DEFAULT 0,

    UNIQUE (path, body)
);

CREATE INDEX IF NOT EXISTS "{due}" ON "{table}" (due);

-- Few rows have anything but two zeros here. The lists by state go by these.
CREATE INDEX IF NOT EXISTS "{state}" ON "{table}" (disabled, standing)
    WHERE disabled <> 0 OR standing <> 0;
