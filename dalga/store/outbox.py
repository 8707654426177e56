"""
The interface of the alerts that wait to be sent, as `dalga.store` is the interface of jobs.
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


class Settled(NamedTuple):
    """What came of the attempt to send an alert."""

    parcel: Parcel
    #: When it is sent again, from now on; None if it is over.
    again: timedelta | None
    #: Why it did not arrive; None if it did.
    error: str | None


class Watch(NamedTuple):
    """What there is to be told of, but for jobs."""

    now: datetime
    #: The incidents that are open, and since when.
    incidents: Mapping[str, datetime]
    #: For how long the job has been due that is due first.
    lag: timedelta
    #: How many alerts wait to be sent, up to 1,000.
    pending: int


class Outbox(Protocol):
    """
    The alerts that wait to be sent, and what there is to be told of. Alerts about jobs are written
    by `Store.record` and `Store.claim`. Each method may fail with `StoreUnavailable`.
    """

    @property
    def targets(self) -> Targets:
        """Where this instance sends alerts. Others are left to other instances."""

    @property
    def written(self) -> int:
        """How many alerts this instance has written, or a few more."""

    def claim(self, limit: int) -> Deferred[list[Parcel]]:
        """Take up to `limit` due alerts, each under a lease of a minute."""

    def settle(self, settled: Sequence[Settled]) -> Deferred[None]:
        """Write what came of alerts that were claimed, unless their lease was over."""

    def watch(self) -> Deferred[Watch]:
        """Look at what there is to be told of."""

    def begin(self, name: str, alert: Alert) -> Deferred[bool]:
        """
        Begin an incident, and write its alert, unless the incident is open.

        :return: whether this call has begun it.
        """

    def end(self, name: str, alert: Alert) -> Deferred[bool]:
        """
        End an incident that is open, and write an alert, with the time since when it was.

        :return: whether this call has ended it.
        """

    def silences(self) -> Deferred[bool]:
        """
        Look at some of the jobs that had no success for too long, and write their alerts.

        :return: whether there may be more.
        """

    def newest(self, limit: int) -> Deferred[list[KeptAlert]]:
        """The newest alerts, the newest one first."""

    def forget(self, limit: int) -> Deferred[int]:
        """
        Remove up to `limit` old alerts, and give up as many whose target no instance has; gives how
        many were found of those of which there were more.
        """
