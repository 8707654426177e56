"""
How many rows a claim takes: for free slots, ahead of them, and of a burst.

Runs end while a claim is made, and their slots would stay empty until the next claim. So a claim
takes rows *ahead* of free slots: about as many as slots become free meanwhile.

A *burst* is more jobs that are due at once than this instance has slots. An example, with 100
slots, and 300 jobs that are due at 10:00:05::

    this instance is alone     one claim takes 300 rows, 200 of them ahead of free slots
    seven others are alive     a claim takes a share, 38 rows

The eight instances have free slots for all 300, so no claim goes ahead: a run that waits at one
instance could start at another. Of 3,000 jobs each claims a share ahead, too.

Runs that wait hold their payloads in memory. An example, with 100 slots, all of them taken, and
jobs of 1 MiB each. A claim takes at most 2 MiB of payloads (`dalga.store.runs`)::

    waiting runs hold    the next claim
    0 to 3 MiB           goes ahead, and takes 2 MiB more
    4 or 5 MiB           does not go ahead: it is made as soon as enough waiting runs have started,
                         or more slots are free than runs wait

What always holds (P10): a claim takes at most `AHEAD` rows for each slot ahead of free slots, and
none while waiting runs hold `HELD` octets of payloads.
"""

from __future__ import annotations

#: Rows that a claim takes ahead of free slots, at most, for each slot.
AHEAD = 2

#: Claims stop going ahead when waiting runs hold so many octets of payloads: what two claims take.
#: With less, slots for large payloads would wait for the database more often.
HELD = 2**22

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
    return max(-(-due // (others + 1)), slots // 4)  # the equal part is rounded up


class ClaimSize:
    """
    How many rows the next claim takes, by what the claims before it came to. The outlook tells it
    of claims, and `Slots` of runs that end or are given back.

    :param slots: how many runs may be under way.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        #: The least number of due jobs that is a burst.
        self.burst = slots + 1
        #: How many rows the next claim takes beyond the free slots, if waiting runs do not hold too
        #: much: see `claimed`, and `ahead_of`. A burst may raise that: see `claim_begins`.
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
        #: How many runs have ended since the last claim began.
        self._ended = 0

    def resize(self, slots: int) -> None:
        """
        There are more slots, or fewer, from now on.

        :param slots: see the class.
        """
        self._slots = slots
        self.burst = slots + 1
        self.ahead = min(self.ahead, AHEAD * slots)

    @property
    def in_burst(self) -> bool:
        """Whether a burst was due when the last claim began."""
        return self._due >= self.burst

    def ahead_of(self, held: int) -> int:
        """
        How many rows a claim takes beyond the free slots.

        :param held: how many octets of payloads waiting runs hold.
        """
        return self.ahead if held < HELD else 0

    def most(self, others: int) -> int:
        """
        A number of due jobs above which no number makes a difference.

        :param others: how many other instances are alive.
        """
        return (1 + AHEAD) * self._slots * (1 + others)

    def run_ended(self) -> None:
        """A POST has ended: its slot is free."""
        self._ended += 1

    def gave_back(self, seconds: float) -> None:
        """
        All waiting runs are given back: claim for free slots alone, until a claim is full.

        :param seconds: the present time by the reactor's clock.
        """
        self.ahead = 0
        self.claimed_too_many(seconds)

    def claimed_too_many(self, seconds: float) -> None:
        """
        Runs are given back, as slots or shares of them come too slowly: see `RESERVE`.

        :param seconds: the present time by the reactor's clock.
        """
        self._reserved_until = seconds + RESERVE

    def claim_begins(self, due: int, others: int, running: int, seconds: float) -> None:
        """
        A claim looks at all rows that are due by now. If it is the first claim of a burst, and more
        jobs are due than all instances have slots (as many as this one, each), it goes ahead of
        free slots. But not if more than a quarter of the slots are taken: then it may take long
        until more slots are free.

        :param due: how many jobs on the agenda are due; any number from `most` on for more.
        :param others: how many other instances are alive.
        :param running: how many runs are under way.
        :param seconds: the present time by the reactor's clock.
        """
        self._due = self._left + due
        self._begins_burst = (
            self._due > self._slots * (1 + others)
            and not self._full
            and 4 * running <= self._slots
            and seconds >= self._reserved_until
        )
        if self._begins_burst:
            self.ahead = min(self._due, AHEAD * self._slots)
        self._ended = 0

    def rows(self, wanted: int, others: int) -> int:
        """
        How many rows the claim that has just begun takes: in a burst no more than a share.

        :param wanted: how many rows it could take, with `ahead`.
        :param others: how many other instances are alive.
        """
        if others and self.in_burst:
            return min(wanted, share_of(self._due, self._slots, others))
        return wanted

    def claimed(self, found: int, full: bool, forgotten: int, running: int) -> None:
        """
        The claim has answered. If it was full, the next claim takes as many rows ahead as runs
        ended during this one, since about as many slots become free during the next. If no run was
        left under way, slots were empty meanwhile, and more runs would have ended: then it takes
        twice as many.

        :param found: how many rows the claim took.
        :param full: whether there may be more due rows.
        :param forgotten: how many jobs the agenda has forgotten, as the claim has looked for them.
        :param running: how many runs are under way, without those that this claim has brought.
        """
        self._full = full
        self._left = max(self._left + forgotten - found, 0) if full else 0
        if not full:
            self.ahead = 0  # other instances may have room for the rows due next
        elif self._begins_burst:
            # No run could end during the first claim of a burst. They will during the next.
            self.ahead = min(self._left, self._slots)
        else:
            self.ahead = min(self._ended if running else 2 * self._ended, AHEAD * self._slots)
