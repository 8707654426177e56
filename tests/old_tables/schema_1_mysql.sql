-- Our own table, schema version 1, on MySQL and MariaDB.
CREATE TABLE `dalga` (
    id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT PRIMARY KEY,
    path       VARBINARY(1020)  NOT NULL,
    body       VARBINARY(1020)  NOT NULL,
    `interval` VARCHAR(255)     NOT NULL,
    scheduled  DATETIME(6)      NOT NULL,
    due        DATETIME(6)      NULL,
    run        BINARY(16)       NULL,
    attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
    error      VARCHAR(255)     NULL,
    token      BINARY(16)       NULL,
    superseded TINYINT UNSIGNED NOT NULL DEFAULT 0,
    UNIQUE KEY job (path, body),
    KEY due (due)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COMMENT='dalga schema 1';

-- The rows: waiting, overdue, one-off, being retried, set aside; and three whose instance was
-- killed during a run: nothing else happened to the first, the second was scheduled anew
-- meanwhile, and the third deleted.
INSERT INTO dalga
  (id, path, body, `interval`, scheduled, due, run, attempts, error, token, superseded) VALUES
  (3, 'check_feed', '1234', '60', '2099-01-01 00:00:00.250000', '2099-01-01 00:00:00.250000', NULL, 0, NULL, NULL, 0),
  (4, 'check_feed', 'overdue', '60', '2021-03-04 05:06:07.000000', '2021-03-04 05:06:07.000000', NULL, 0, NULL, NULL, 0),
  (5, 'remind', 'later', '', '2099-01-01 00:00:01.000000', '2099-01-01 00:00:01.000000', NULL, 0, NULL, NULL, 0),
  (6, 'check_feed', 'failing', '3600', '2021-03-04 05:06:07.000000', '2098-12-31 00:00:00.000000', X'00112233445566778899AABBCCDDEEFF', 5, '500 Internal Server Error', NULL, 0),
  (7, 'check_feed', 'aside', 'hourly', '2021-03-04 05:06:07.000000', NULL, NULL, 0, 'interval is ''hourly''', NULL, 0),
  (9, 'check_feed', 'killed', '60', '2021-03-04 05:06:08.000000', '2021-03-04 05:06:30.000000', X'000102030405060708090A0B0C0D0E0F', 1, NULL, X'000102030405060708090A0B0C0D0E0F', 0),
  (10, 'check_feed', 'killed, scheduled', '60', '2099-01-01 00:00:02.000000', '2021-03-04 05:06:31.000000', NULL, 0, NULL, X'000102030405060708090A0B0C0D0E0F', 1),
  (11, 'check_feed', 'killed, deleted', '60', '2021-03-04 05:06:08.000000', '2021-03-04 05:06:32.000000', NULL, 0, NULL, X'000102030405060708090A0B0C0D0E0F', 2);
