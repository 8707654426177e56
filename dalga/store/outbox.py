"""
The interfaces to alerts, as `dalga.store` is the interface to jobs. `Outbox` has the alerts that
wait to be sent. `Lookout` finds incidents and silent jobs, and writes the alerts about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from dalga.model.alert import Alert, KeptAlert, Targets


class Parcel(NamedTuple):
    """An alert that this instance is to send, under a lease."""

    id: bytes
    token: bytes
    #: The name of its target.
    target: str
    #: Its JSON.
    content: str
    #: How many attempts it had, this one included.
    attempt: int
    #: For how long it is sent again if it does not arrive.
    lasts: timedelta


class Taken(NamedTuple):
    """What a claim of alerts has taken."""

    parcels: list[Parcel]
    #: After how long there may be more to take; None if that is not known.
    again: timedelta | None


class Forgotten(NamedTuple):
    """What was found by a look for alerts that nobody needs, or can send."""

    #: Whether there may be more of them.
    has_more: bool
    #: The targets, in order, to which alerts wait that no instance takes.
    targets: tuple[str, ...]
    #: How many of these alerts were given up.
    given_up: int


class Settled(NamedTuple):
    """What came of the attempt to send an alert."""

    parcel: Parcel
    #: When it is sent again, from now on; None if it is over.
    again: timedelta | None
    #: Why it did not arrive; None if it did.
    error: str | None


class Watch(NamedTuple):
    """What a look has found: see `Lookout.watch`."""

    now: datetime
    #: The incidents that are open, and since when.
    incidents: Mapping[str, datetime]
    #: For how long the oldest due job has been due; zero if no job is due.
    lag: timedelta
    #: How many alerts wait to be sent, up to 1,000.
    pending: int


class Outbox(Protocol):
    """
    The alerts that wait to be sent. `Store.record` and `Store.claim` write those about jobs, and
    `Lookout` writes the others. Each method may fail with `StoreUnavailable`.
    """

    @property
    def targets(self) -> Targets:
        """Where this instance sends alerts. Others are left to other instances."""

    @property
    def written(self) -> int:
        """How many alerts this instance has written, or a few more."""

    def claim(self, rooms: Mapping[str, int]) -> Deferred[Taken]:
        """
        Take due alerts, each under a lease of half a minute. Of the alerts about one job to one
        target, none is taken while an earlier one is not over. Alerts about an endpoint, and about
        the scheduler, keep the same order.

        :param rooms: how many alerts may be taken at most, by the names of the targets. Alerts to
            other targets are left to other instances.
        """

    def settle(self, settled: Sequence[Settled]) -> Deferred[None]:
        """Write what came of alerts that were claimed, unless their lease was over."""

    def newest(self, limit: int) -> Deferred[list[KeptAlert]]:
        """The newest alerts, the newest one first."""

    def forget(self, limit: int) -> Deferred[Forgotten]:
        """
        Remove up to `limit` old alerts. Of the alerts that no instance has taken for ten minutes,
        and whose target this instance has not, put off up to `limit` by ten minutes; give up those
        that were made more than a day ago.
        """


class Lookout(Protocol):
    """
    Incidents of endpoints and of the scheduler, and silent jobs. Each method may fail with
    `StoreUnavailable`.
    """

    def watch(self) -> Deferred[Watch]:
        """Read the open incidents, the lag, and how many alerts wait. Nothing is written."""

    def begin(self, name: str, alert: Alert) -> Deferred[bool]:
        """
        Begin an incident, and write its alert, unless the incident is open.

        :return: whether this call has begun it.
        """

    def end(self, name: str, alert: Alert) -> Deferred[bool]:
        """
        End an incident that is open, and write its alert. The alert's `since` is the beginning of
        the incident.

        :return: whether this call has ended it.
        """

    def silences(self) -> Deferred[bool]:
        """
        Look at some of the jobs that had no success for too long, and write their alerts.

        :return: whether there may be more.
        """
