"""
What this instance knows of the rows to come: when to claim, how many rows, and when to scan.

`Outlook` holds the agenda, and what else tells whether a claim would find rows. Two examples, with
a scan each second::

    a scan finds a job that is due at 10:00:05         the agenda has it: claim at 10:00:05
    a claim was asked for 40 rows, and finds 40        there may be more: claim again at once

A *burst* is more jobs that are due at once than this instance has slots. An example, with 100
slots, and 300 jobs that are due at 10:00:05::

    this instance is alone     one claim takes 300 rows, 200 of them ahead of free slots
    seven others are alive     nobody leaves a lead (`lead.py`); a claim takes a share, 38 rows

What always holds: nothing here decides what runs. A claim that is made in vain costs a query, and a
due time that nobody told is found by the next scan. A claim takes at most `AHEAD` rows a slot ahead
of free slots.

`Outlook` asks no store and sets no timer: the scheduler does, and tells it what it learnt. Due
times are instants of the database's clock, other times are seconds of the reactor's clock. Others
read the attributes, and change none of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dalga.dispatch.agenda import Agenda
from dalga.dispatch.lead import Lead
from dalga.store import Claimed, Dues, Recorded

#: Rows that a claim takes ahead of free slots in a burst, at most, for each slot.
AHEAD = 2

#: After runs that were claimed ahead had to be given back, claims take none ahead for a burst, for
#: so many seconds.
RESERVE = 60.0


def share_of(due: int, slots: int, others: int) -> int:
    """
    How many rows of a burst an instance claims at once: an equal part, but at least a quarter of
    its slots. An instance that is back for more before the others have come claims again.

    :param due: how many jobs are due.
    :param others: how many other instances are alive.
    """
    return max(due // (others + 1) + 1, slots // 4)


class Outlook:
    """
    See the module's text.

    :param scan: from one scan to the next, in seconds, where nothing asks for one sooner.
    :param slots: how many runs may be under way.
    """

    def __init__(self, scan: float, slots: int) -> None:
        self._scan = scan
        self._slots = slots
        self.agenda = Agenda()
        #: Whether to claim at once: there may be due rows whose times are not on the agenda.
        self.more = True
        self.lead = Lead()
        #: How many rows the next claim takes beyond the free slots: see `claimed`. A burst may
        #: raise that: see `claim_begins`.
        self.ahead = 0
        #: How many jobs are due, as far as is known, beside those on the agenda: the last claim has
        #: left them.
        self._left = 0
        #: How many jobs were due when the last claim began, as far as was known.
        self._due = 0
        #: Whether the last claim that ended was full.
        self._full = False
        #: Whether the last claim that began was the first of a burst that claims go ahead for.
        self._begins_burst = False
        #: Until when claims take no rows ahead for a burst, in seconds of the reactor's clock.
        self._reserved_until = 0.0
        #: When the next scan begins, in seconds of the reactor's clock: the first one at once.
        self.next_scan = 0.0
        #: Due times that became known during the claim under way; None while none is.
        self._meanwhile: list[datetime] | None = None
        #: How many runs have ended since the last claim began.
        self._ended = 0
        #: The paths that the last scan did not read.
        self._unscanned: frozenset[str] = frozenset()

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

    def run_ended(self) -> None:
        """A POST has ended: its slot is free."""
        self._ended += 1

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

    def gave_back(self, seconds: float) -> None:
        """
        All waiting runs are given back: claim for free slots alone, until a claim is full.

        :param seconds: the present time by the reactor's clock.
        """
        self.ahead = 0
        self.claimed_too_many(seconds)

    def claimed_too_many(self, seconds: float) -> None:
        """Runs are given back, as slots or shares of them come too slowly: see `RESERVE`."""
        self._reserved_until = seconds + RESERVE

    # Claims

    def next_claim(self) -> datetime | None:
        """
        When to claim for what is on the agenda, by the database's clock; None for nothing. That is
        later than the due time by the lead, but not for a burst: it is for all instances.
        """
        due = self.agenda.next()
        if due is None or not (lead := self.lead.seconds):
            return due
        later = due + timedelta(seconds=lead)
        return due if self._is_burst(self.agenda.jobs_until(later, self._slots + 1)) else later

    def claim_begins(self, running: int, now: datetime, seconds: float) -> None:
        """
        A claim looks at all rows that are due by now. If it is the first claim of a burst, it goes
        ahead of free slots, unless more than a quarter of the slots are taken: then it may take
        long until more slots are free.

        :param running: how many runs are under way.
        :param now: the database's time.
        :param seconds: the same moment by the reactor's clock.
        """
        enough = (1 + AHEAD) * self._slots * (1 + self.lead.others)
        self._due = self._left + self.agenda.jobs_until(now, enough)
        self._begins_burst = (
            self._is_burst(self._due)
            and not self._full
            and 4 * running <= self._slots
            and seconds >= self._reserved_until
        )
        if self._begins_burst:
            self.ahead = min(self._due, AHEAD * self._slots)
        self._meanwhile, self._ended, self.more = [], 0, False

    def rows(self, wanted: int) -> int:
        """
        How many rows the claim that has just begun takes: in a burst no more than a share.

        :param wanted: how many rows it could take, with `ahead`.
        """
        if self.lead.others and self._is_burst(self._due):
            return min(wanted, share_of(self._due, self._slots, self.lead.others))
        return wanted

    def claimed(
        self, claimed: Claimed, running: int, left_out: frozenset[str], seconds: float
    ) -> None:
        """
        The claim has answered. If it was full, the next claim takes as many rows ahead as runs
        ended during this one, since about as many slots become free during the next. If no run was
        left under way, slots were empty meanwhile, and more runs would have ended: then it takes
        twice as many.

        :param running: how many runs are under way, without those that this claim has brought.
        :param left_out: the paths that claims and scans leave out.
        :param seconds: the present time by the reactor's clock.
        """
        due = self.agenda.next()
        # In a burst nobody leaves a lead. A row of a path that claims leave out is nobody's.
        if due is not None and due <= claimed.now and not (left_out or self._is_burst(self._due)):
            waited = claimed.now - claimed.runs[0].due if claimed.runs else timedelta(0)
            self.lead.claimed(len(claimed.runs), waited.total_seconds())
        left = self._left + self.agenda.forget_until(claimed.now) - len(claimed.runs)
        self._full = claimed.full
        self._left = max(left, 0) if claimed.full else 0
        if not claimed.full:
            self.ahead = 0  # other instances may have room for the rows due next
        elif self._begins_burst:
            # No run could end during the first claim of a burst. They will during the next.
            self.ahead = min(self._left, self._slots)
        else:
            self.ahead = min(self._ended if running else 2 * self._ended, AHEAD * self._slots)
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

    def _is_burst(self, due: int) -> bool:
        return due > self._slots

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
