CREATE TABLE {table} (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,

    -- The job's key: compared as exact bytes.
    path       TEXT    NOT NULL,
    body       TEXT    NOT NULL,

    -- Whole seconds between two runs; empty for a one-off job.
    "interval" TEXT    NOT NULL,
    -- The time for which the pending (or running) run is scheduled. All times are UTC, as
    -- YYYY-MM-DD HH:MM:SS.ffffff, which sorts as it should.
    scheduled  TEXT    NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: never; the row was set aside.
    due        TEXT    NULL,

    -- The pending run: half of its id, written by its first claim, and how often it was attempted.
    run        BLOB    NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      TEXT    NULL,

    -- The lease: who holds it, until due. Past that it means nothing.
    token      BLOB    NULL,
    -- What the user has said during the lease: 0 nothing, 1 scheduled anew, 2 deleted.
    superseded INTEGER NOT NULL DEFAULT 0,

    UNIQUE (path, body)
)
