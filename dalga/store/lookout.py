"""
Incidents of endpoints and of the scheduler, the lag, and silent jobs; and the alerts about these.
No end of a run tells of them, so instances look at them every few seconds.
`dalga.store.outbox.Lookout` says what each call does.

An incident is a row. The instance whose INSERT begins the incident, or whose DELETE ends the
incident, writes its alert in the same transaction. So each beginning and each end is told of once,
whichever instances see it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from twisted.internet.defer import Deferred

from dalga.model.alert import Alert, Event
from dalga.model.job import Standing
from dalga.model.options import Options
from dalga.model.streak import Told
from dalga.store.alerts import AlertRows
from dalga.store.alertsql import AlertStatements, SilentRow
from dalga.store.dialect import Cursor, Dialect
from dalga.store.outbox import Watch
from dalga.store.rows import Override, Unreadable, options_of, shown_key
from dalga.store.transactions import Transactions
from dalga.store.values import octets, text_of

#: Silent jobs that are looked at in one transaction, at most.
SILENCES = 25

#: Open incidents that are read, at most.
INCIDENTS = 1_000


class LookoutTables:
    """
    :param lane: the transactions of the API, before which claims of runs go.
    :param rows: writes the alerts.
    """

    def __init__(
        self, dialect: Dialect, sql: AlertStatements, lane: Transactions, rows: AlertRows
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._rows = rows

    def watch(self) -> Deferred[Watch]:
        """See `Lookout.watch`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Watch:
            incidents = {}
            for row in self._sql.incidents.fetch(cursor, limit=INCIDENTS):
                try:
                    began = self._dialect.read_instant(row.since)
                except ValueError:
                    began = now
                incidents[text_of(row.name)] = began
            oldest = self._sql.due_first.fetch(cursor, now=self._dialect.instant(now))
            lag = timedelta()
            if oldest:
                # A claim sets a row aside whose due time is none.
                with suppress(ValueError):
                    lag = now - self._dialect.read_instant(oldest[0].due)
            (pending,) = self._sql.pending.fetch(cursor)
            return Watch(now, incidents, lag, pending.number)

        return self._lane.run(work, "alerts")

    def begin(self, name: str, alert: Alert) -> Deferred[bool]:
        """See `Lookout.begin`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            key = self._dialect.key
            began = self._dialect.instant(alert.since or now)
            mine = self._rows.new_id(now).hex()
            instance = f"{self._rows.instance} {mine}"
            self._sql.begin.execute(cursor, name=key(name), since=began, instance=key(instance))
            # The row is read again: the drivers count an upsert of a row that is there differently.
            rows = self._sql.incident.fetch(cursor, name=key(name))
            if not rows or octets(rows[0].instance) != instance.encode():
                return False
            self._send(cursor, now, alert)
            return True

        return self._lane.run(work, "alerts")

    def end(self, name: str, alert: Alert) -> Deferred[bool]:
        """See `Lookout.end`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            key = self._dialect.key(name)
            rows = self._sql.incident.fetch(cursor, name=key)
            if not rows:
                return False
            began = self._dialect.read_instant(rows[0].since)
            if self._sql.end.execute(cursor, name=key, since=self._dialect.instant(began)) != 1:
                return False
            self._send(cursor, now, alert._replace(since=began))
            return True

        return self._lane.run(work, "alerts")

    def _send(self, cursor: Cursor, now: datetime, alert: Alert) -> None:
        """Write an alert about an endpoint or the scheduler, if there is a target."""
        target = self._rows.targets.of_endpoint(alert.endpoint)
        if target is not None:
            self._rows.add(cursor, now, [(target, alert._replace(at=now))])

    def silences(self) -> Deferred[bool]:
        """See `Lookout.silences`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            at = self._dialect.instant(now)
            rows = self._sql.silent.fetch(cursor, now=at, limit=SILENCES)
            # All transactions lock a job's row before the job's other rows. So does this one.
            ids = [row.id for row in rows if row.job is not None]
            free = {row.id for row in self._sql.lock_jobs.fetch(cursor, ids)} if ids else set()
            alerts = [
                told
                for row in rows
                if row.job is None or row.id in free
                if (told := self._silence(cursor, now, row)) is not None
            ]
            self._rows.add(cursor, now, alerts)
            return len(rows) == SILENCES

        return self._lane.run(work, "alerts")

    def _silence(self, cursor: Cursor, now: datetime, row: SilentRow) -> tuple[str, Alert] | None:
        """
        Write what becomes of a job that had no success for too long.

        :return: the alert behind the name of its target; None if nobody is told.
        """
        sql, at = self._sql, self._dialect.instant(now)
        try:
            options = Options() if row.job is None else options_of(row.options)
        except Unreadable:
            options = Options()
        within = options.expect_within
        is_over = row.job is None or within is None or row.standing == Standing.DONE
        if is_over or row.override == Override.DELETED:
            sql.expect_no_more.execute(cursor, id=row.id, now=at)
            return None
        assert within is not None
        if row.disabled:
            # Nobody expects a disabled job to succeed. Its time begins anew.
            until = self._dialect.instant(now + within)
            sql.await_again.execute(cursor, id=row.id, now=at, until=until)
            return None
        # Two instances may have read the row. The first one to change the row tells of the silence.
        if sql.await_again.execute(cursor, id=row.id, now=at, until=None) != 1:
            return None
        target = self._rows.targets.of_job(options.alert_url, options.endpoint)
        if target is None:
            return None
        sql.tell.execute(cursor, id=row.id, told=int(Told.SILENT))
        alert = Alert(Event.JOB_SILENT, now, shown_key(row.path, row.body), options.endpoint)
        # A stranger may have written a time that is none, or that no job has (P6).
        with suppress(ValueError, OverflowError):
            since = self._dialect.read_instant(row.silent) - within
            next_run = None if row.due is None else self._dialect.read_instant(row.due)
            alert = alert._replace(since=since, next_run=next_run)
        return target, alert
