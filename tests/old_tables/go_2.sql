-- As Go release 2 creates and fills its tables. Instance 7 was killed long ago, while it ran a job.
CREATE TABLE `dalga_instances` (
  `id`          INT            UNSIGNED NOT NULL,
  `updated_at`  DATETIME       NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE `dalga` (
  `path`        VARCHAR(255)        NOT NULL,
  `body`        VARCHAR(255)        NOT NULL,
  `interval`    INT UNSIGNED        NOT NULL,
  `next_run`    DATETIME            NOT NULL,
  `instance_id` INT                 UNSIGNED,
  PRIMARY KEY (`path`, `body`),
  KEY         (`next_run`),
  FOREIGN KEY (`instance_id`) REFERENCES `dalga_instances` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

INSERT INTO `dalga_instances` (`id`, `updated_at`) VALUES (7, '2021-03-04 05:06:10');

INSERT INTO `dalga` (`path`, `body`, `interval`, `next_run`, `instance_id`) VALUES
  ('check_feed', '1234', 60, '2099-01-01 00:00:00', NULL),
  ('check_feed', 'overdue', 60, '2021-03-04 05:06:07', NULL),
  ('check_feed', 'running', 60, '2021-03-04 05:06:06', 7),
  ('remind', 'later', 0, '2099-01-01 00:00:01', NULL),
  ('remind', 'overdue', 0, '2021-03-04 05:06:08', NULL),
  ('rapor/günlük', '🙂', 86400, '2021-03-04 05:06:09', NULL);
