-- As Go release 1.0 creates and fills its table. Times are UTC; interval 0 is a one-off job.
CREATE TABLE `dalga` (
  `path`        VARCHAR(255)    NOT NULL,
  `body`        VARCHAR(255)    NOT NULL,
  `interval`    INT UNSIGNED    NOT NULL,
  `next_run`    DATETIME        NOT NULL,

  PRIMARY KEY (`path`, `body`),
  KEY `idx_next_run` (`next_run`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8;

INSERT INTO `dalga` (`path`, `body`, `interval`, `next_run`) VALUES
  ('check_feed', '1234', 60, '2099-01-01 00:00:00'),
  ('check_feed', 'overdue', 4294967295, '2021-03-04 05:06:07'),
  ('remind', 'later', 0, '2099-01-01 00:00:01'),
  ('remind', 'overdue', 0, '2021-03-04 05:06:08'),
  ('Report', 'weekly ', 604800, '2099-01-01 00:00:02'),
  ('rapor/günlük', 'İzmir', 86400, '2021-03-04 05:06:09');
