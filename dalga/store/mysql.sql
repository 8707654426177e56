CREATE TABLE {table} (
    id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT PRIMARY KEY,

    -- The job's key: exact bytes, up to 255 characters of UTF-8 each.
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,

    -- Whole seconds between two runs; empty for a one-off job.
    `interval` VARCHAR(255)     NOT NULL,
    -- The time for which the pending (or running) run is scheduled. All times are UTC.
    scheduled  DATETIME(6)      NOT NULL,
    -- When the row may next be taken: the scheduled time, a retry's time, or the end of a lease.
    -- NULL: never; the row was set aside.
    due        DATETIME(6)      NULL,

    -- The pending run: half of its id, written by its first claim, and how often it was attempted.
    run        BINARY(16)       NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    -- Why the last attempt failed, or why the row was set aside.
    error      VARCHAR(255)     NULL,

    -- The lease: who holds it, until due. Past that it means nothing.
    token      BINARY(16)       NULL,
    -- What the user has said during the lease: 0 nothing, 1 scheduled anew, 2 deleted.
    superseded TINYINT UNSIGNED NOT NULL DEFAULT 0,

    UNIQUE KEY job (path, body),
    KEY due (due)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='{comment}'
