-- As Go release 3 creates and fills its tables. Instance 7 was killed long ago, while it ran jobs.
CREATE TABLE `dalga_instances` (
  `id`          INT            UNSIGNED NOT NULL,
  `updated_at`  DATETIME       NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE `dalga` (
  `path`        VARCHAR(255)        NOT NULL,
  `body`        VARCHAR(255)        NOT NULL,
  `interval`    VARCHAR(255)        NOT NULL,
  `location`    VARCHAR(255)        NOT NULL,
  `next_run`    DATETIME                NULL,
  `next_sched`  DATETIME            NOT NULL,
  `instance_id` INT                 UNSIGNED,
  PRIMARY KEY (`path`, `body`),
  KEY         (`next_run`),
  FOREIGN KEY (`instance_id`) REFERENCES `dalga_instances` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO `dalga_instances` (`id`, `updated_at`) VALUES (7, '2021-03-04 05:06:10');

INSERT INTO `dalga`
  (`path`, `body`, `interval`, `location`, `next_run`, `next_sched`, `instance_id`) VALUES
  ('check_feed', '1234', 'PT60S', '', '2099-01-01 00:00:00', '2099-01-01 00:00:00', NULL),
  ('check_feed', 'overdue', 'PT60S', '', '2021-03-04 05:06:07', '2021-03-04 05:06:07', NULL),
  ('check_feed', 'running', 'PT1H', '', '2021-03-04 05:06:06', '2021-03-04 05:06:06', 7),
  ('check_feed', 'disabled', 'PT1M', '', NULL, '2021-03-04 05:06:05', NULL),
  ('check_feed', 'disabled while it ran', 'PT1M', '', NULL, '2021-03-04 05:06:05', 7),
  ('check_feed', 'failing', 'P1D', 'Europe/Istanbul', '2098-12-31 00:00:00', '2021-03-04 05:00:00', NULL),
  ('report', 'monthly', 'P1M', 'America/Los_Angeles', '2099-01-31 08:00:00', '2099-01-31 08:00:00', NULL),
  ('report', 'strange', 'P1Y2M3W4DT5H6M7S', 'UTC', '2099-01-01 00:00:02', '2099-01-01 00:00:02', NULL),
  ('report', 'fortnightly', 'P2W', 'Asia/Kathmandu', '2099-01-01 00:00:03', '2099-01-01 00:00:03', NULL),
  ('remind', 'later', '', 'Europe/Riga', '2099-01-01 00:00:01', '2099-01-01 00:00:01', NULL),
  ('remind', 'overdue', 'P0D', '', '2021-03-04 05:06:08', '2021-03-04 05:06:08', NULL);
