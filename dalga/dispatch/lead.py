"""
The lead: how long after the due time an instance claims, so that other instances go first.

All instances on a table have each job on their agendas. If all of them claimed at the due time, one
would get the job, and the claims of the others would be empty. So an instance whose claim was empty
leaves the others a *lead*: it claims that much later than the due time. An example, with two
instances, and jobs that are due one by one::

    a and b claim at once    a gets the job; b's claim is empty, and b leaves a 1 ms
    a claims, b 1 ms later   the same; b leaves 2 ms, then 4, 8, 16 and 32 ms
    a claims                 in 32 ms a gets some jobs; then b claims once, and finds none
    a dies                   b finds a job that has waited for 32 ms: b leaves no lead any more

What a claim makes of the lead::

    no row                                      1, 2, 4 ... ms, at most 32
    a row that has waited for half the lead     no lead: whoever was ahead is busy, or gone
    several rows, none of which has waited      half the lead: there is work for more
    one row that has not waited                 the same lead: luck

What always holds: a lead makes a job late by 32 ms at most. An instance that is alone leaves none.
"""

from __future__ import annotations

#: The last step of the lead: 32 ms.
LONGEST = 6


def seconds_of(step: int) -> float:
    """The lead of a step, in seconds: none, and from step 1 on 1 ms, 2 ms, 4 ms ..."""
    return 0.0005 * 2**step if step else 0.0


def step_after(step: int, found: int, waited: float) -> int:
    """
    The step after a claim for which a row was due.

    :param step: the step so far, 0 to `LONGEST`.
    :param found: how many rows the claim took.
    :param waited: how long the first of them had been due, in seconds; 0 if there was none.
    """
    if not found:
        return min(step + 1, LONGEST)
    if waited >= seconds_of(step) / 2:
        return 0
    return max(step - 1, 0) if found > 1 else step


class Lead:
    """The lead that this instance leaves the others."""

    def __init__(self) -> None:
        #: How many other instances were alive at the last heartbeat.
        self.others = 0
        self._step = 0

    @property
    def seconds(self) -> float:
        """How much later than the due time this instance claims, in seconds."""
        return seconds_of(self._step) if self.others else 0.0

    def leave_longest(self) -> None:
        """From now on, leave the others as much as there is."""
        self._step = LONGEST

    def claimed(self, found: int, waited: float) -> None:
        """A claim has answered for which a row was due. See `step_after`."""
        self._step = step_after(self._step, found, waited)
