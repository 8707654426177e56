"""
What this instance knows of the rows to come: when to claim, and when to scan.

`Outlook` holds the agenda, the lead (`lead.py`), how many rows a claim takes (`claimsize.py`), and
what else tells whether a claim would find rows. Two examples, with a scan each second::

    a scan finds a job that is due at 10:00:05         the agenda has it: claim at 10:00:05
    a claim was asked for 40 rows, and finds 40        there may be more: claim again at once

What always holds: nothing here decides what runs. An empty claim costs a query. A due time that
nobody told is found by the next scan.

`Outlook` asks no store and sets no timer: the scheduler does, and tells `Outlook` what it learnt.
Due times are instants of the database's clock, other times are seconds of the reactor's clock.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta

from dalga.dispatch.agenda import Agenda
from dalga.dispatch.claimsize import ClaimSize
from dalga.dispatch.lead import Lead
from dalga.store import Claimed, Dues, Recorded

#: How long (seconds) an instance leaves others the longest lead, from the last run on that only
#: they can POST. Such a run is due again within half of it: see `elsewhere.py`.
STANDS_BACK = 60.0


class Outlook:
    """
    See the module's text.

    :param scan: from one scan to the next, in seconds, where nothing asks for one sooner.
    :param slots: how many runs may be under way.
    """

    def __init__(self, scan: float, slots: int) -> None:
        self._scan = scan
        self.agenda = Agenda()
        #: Whether to claim at once: there may be due rows whose times are not on the agenda.
        self.more = True
        self.lead = Lead()
        self.size = ClaimSize(slots)
        #: When the next scan begins, in seconds of the reactor's clock: the first one at once.
        self.next_scan = 0.0
        #: When the oldest job was due that the last scan or claim has found and no claim has taken;
        #: None if there was none. It may be to come.
        self.oldest: datetime | None = None
        #: How many jobs were due at the last scan, of those that it listed.
        self.due = 0
        #: Due times that became known during the claim under way; None while none is.
        self._meanwhile: list[datetime] | None = None
        #: Until then the others are left the longest lead, in seconds of the reactor's clock.
        self._stands_back_until = 0.0
        #: The paths that the last scan did not read.
        self._unscanned: frozenset[str] = frozenset()

    def reconfigure(self, scan: float, slots: int, seconds: float) -> None:
        """
        Go by other settings from now on: see the class.

        :param seconds: the present time by the reactor's clock.
        """
        self._scan = scan
        self.size.resize(slots)
        self.next_scan = min(self.next_scan, seconds + scan)

    def note(self, due: datetime, now: datetime) -> None:
        """
        A row of the table is due at this time.

        :param now: the database's time.
        """
        if self._meanwhile is not None:
            self._meanwhile.append(due)  # the claim under way may not have seen the row
        elif due <= now:
            self.more = True
        else:
            self.agenda.add(due)

    def recorded(self, recorded: Recorded, now: datetime) -> None:
        """
        A batch of ends is written.

        :param now: the database's time.
        """
        for due in recorded.dues:
            self.note(due, now)
        if recorded.overridden:
            # Those jobs were scheduled anew during the run, maybe for a time that is past by now.
            self.more = True

    # Claims

    def next_claim(self) -> datetime | None:
        """
        When to claim for the earliest time on the agenda, by the database's clock; None if the
        agenda is empty. The claim is later than the due time by the lead, except in a burst: a
        burst is for all instances.
        """
        due = self.agenda.next()
        if due is None or not (lead := self.lead.seconds):
            return due
        later, burst = due + timedelta(seconds=lead), self.size.burst
        return due if self.agenda.jobs_until(later, burst) >= burst else later

    def stand_back(self, seconds: float) -> None:
        """
        A claim has brought a run that only another instance can POST. That one is to be quicker:
        it may be one that leaves this instance a lead.

        :param seconds: the present time by the reactor's clock.
        """
        self._stands_back_until = seconds + STANDS_BACK
        self.lead.leave_longest()

    def claim_begins(self, running: int, now: datetime, seconds: float) -> None:
        """
        A claim looks at all rows that are due by now.

        :param running: how many runs are under way.
        :param now: the database's time.
        :param seconds: the same moment by the reactor's clock.
        """
        others = self.lead.others
        due = self.agenda.jobs_until(now, self.size.most(others))
        self.size.claim_begins(due, others, running, seconds)
        self._meanwhile, self.more = [], False

    def rows(self, wanted: int) -> int:
        """
        How many rows the claim that has just begun takes: see `ClaimSize.rows`.

        :param wanted: how many rows it could take, with `ClaimSize.ahead_of`.
        """
        return self.size.rows(wanted, self.lead.others)

    def claimed(
        self, claimed: Claimed, running: int, left_out: frozenset[str], seconds: float
    ) -> None:
        """
        The claim has answered.

        :param running: how many runs are under way, without those that this claim has brought.
        :param left_out: the paths that claims and scans leave out.
        :param seconds: the present time by the reactor's clock.
        """
        due = self.agenda.next()
        # In a burst nobody leaves a lead. A row of a path that claims leave out is nobody's.
        if due is not None and due <= claimed.now and not (left_out or self.size.in_burst):
            waited = claimed.now - claimed.runs[0].due if claimed.runs else timedelta(0)
            if seconds >= self._stands_back_until:
                self.lead.claimed(len(claimed.runs), waited.total_seconds())
        forgotten = self.agenda.forget_until(claimed.now)
        self.oldest = claimed.runs[-1].due if claimed.full and claimed.runs else None
        self.size.claimed(len(claimed.runs), claimed.full, forgotten, running)
        self.more = self.more or claimed.full
        caught_up = claimed.runs and self._scan_is_past(claimed.now)
        let_in_again = self._unscanned - left_out
        if not claimed.full and (caught_up or let_in_again):
            self.next_scan = seconds  # see what comes next

    def claim_ended(self, succeeded: bool, now: datetime) -> None:
        """
        The claim is over: see to the due times that became known meanwhile.

        :param now: the database's time.
        """
        self.more = self.more or not succeeded
        meanwhile, self._meanwhile = self._meanwhile or [], None
        for due in meanwhile:
            self.note(due, now)

    def lag(self, now: datetime) -> float:
        """
        For how long the oldest unclaimed job has been due, in seconds, as far as is known here.

        :param now: the database's time.
        """
        dues = [due for due in (self.oldest, self.agenda.next()) if due is not None]
        return max(0.0, (now - min(dues, default=now)).total_seconds())

    # Scans

    def scan_soon(self, seconds: float) -> None:
        """
        The next scan begins now.

        :param seconds: the present time by the reactor's clock.
        """
        self.next_scan = seconds

    def scan_begins(self, left_out: frozenset[str], seconds: float) -> None:
        """
        A scan reads the due times of the near future.

        :param left_out: the paths that it does not read.
        :param seconds: the present time by the reactor's clock.
        """
        self._unscanned = left_out
        self.next_scan = seconds + self._scan

    def scanned(self, dues: Dues, now: datetime, seconds: float) -> None:
        """
        The scan has answered.

        :param now: the database's time.
        :param seconds: the same moment by the reactor's clock.
        """
        self.oldest = dues.times[0] if dues.times else None
        self.due = bisect_right(dues.times, now)
        horizon = self.agenda.fill(dues.times, dues.horizon)
        left = (horizon - now).total_seconds()
        if left <= 0:
            self.more = True  # more are due than a scan lists
        elif left < self._scan:
            self.next_scan = min(self.next_scan, seconds + left)

    def path_left_out(self, now: datetime, seconds: float) -> None:
        """A path is left out of claims and scans from now on. The times are as of `scanned`."""
        if self._scan_is_past(now):
            self.next_scan = seconds  # to see behind this path's rows

    def paths_let_in(self) -> None:
        """Claims and scans take in a path that they left out: it may have due rows."""
        self.more = True

    def _scan_is_past(self, now: datetime) -> bool:
        """Whether all due times that the last scan listed are past."""
        horizon = self.agenda.horizon
        return horizon is not None and horizon <= now
