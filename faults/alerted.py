"""
Whether alerts tell of each incident once, and in order: a pure function over the endpoint's log and
the alerts that were delivered.

An *incident* of a job begins when `History.alert_after` attempts in a row have failed, and ends
with the next success. An alert may be delivered several times, always with the same id. It is
delivered first after all earlier alerts of its job.

An example, with three attempts in a row: of the answers 500, 500, 500, 500, 200, 500, 200 the first
four are an incident. There is one alert `job.failing`, and one `job.recovered` after it.

An attempt whose instance died before it recorded the answer counts for nothing, and only the time
until the next attempt tells: as long as a lease, or as short as a retry. Where that can't tell
either, both are allowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from faults.checker import Bounds, Violation
from faults.history import Alert, History, Key, Post

FAILING, RECOVERED = "job.failing", "job.recovered"

#: How much sooner than a lease after it the next attempt comes at least, in seconds, where an
#: attempt was recorded.
SOONER = 2.0


@dataclass
class _Count:
    """How many there are: at least, and at most."""

    least: int = 0
    most: int = 0

    def add(self, least: bool, most: bool) -> None:
        self.least += least
        self.most += most


def check_alerts(history: History, bounds: Bounds) -> list[Violation]:
    """All violations, those of one job together. None where nobody was to be told."""
    if not history.alert_after:
        return []
    posts: defaultdict[Key, list[Post]] = defaultdict(list)
    for post in sorted(history.posts, key=lambda post: post.start):
        posts[post.key].append(post)
    alerts: defaultdict[Key, list[Alert]] = defaultdict(list)
    for alert in sorted(history.alerts, key=lambda alert: alert.made):
        if alert.key is not None:
            alerts[alert.key].append(alert)
    found = [Violation("alerts", ("", alert.id), "is of two events") for alert in _mixed(history)]
    for key in sorted({*posts, *alerts}):
        texts = _of_job(posts[key], alerts[key], history.alert_after, bounds)
        found += [Violation("alerts", key, text) for text in texts]
    return found


def _mixed(history: History) -> Iterator[Alert]:
    """Alerts that have the id of another."""
    seen: dict[str, tuple[str, Key | None]] = {}
    for alert in history.alerts:
        if seen.setdefault(alert.id, (alert.event, alert.key)) != (alert.event, alert.key):
            yield alert


def _of_job(posts: list[Post], alerts: list[Alert], after: int, bounds: Bounds) -> Iterator[str]:
    by_delivery = sorted(alerts, key=lambda alert: alert.delivered, reverse=True)
    told = {alert.id: alert for alert in by_delivery}
    in_order = sorted(told.values(), key=lambda alert: alert.made)
    for event, count in incidents(posts, after, bounds).items():
        number = sum(alert.event == event for alert in in_order)
        if not count.least <= number <= count.most:
            yield f"{number} alerts {event}, for {count.least} to {count.most} of its incidents"
    last = RECOVERED
    for alert in in_order:
        if alert.event in (FAILING, RECOVERED):
            if alert.event == last:
                yield f"{alert.event} of {alert.made:.3f} does not come after the other"
            last = alert.event
    for earlier, later in pairwise(in_order):
        if later.delivered < earlier.delivered:
            yield f"{later.event} of {later.made:.3f} came before {earlier.event}"


def incidents(posts: list[Post], after: int, bounds: Bounds) -> dict[str, _Count]:
    """
    How many alerts of which event a job's attempts ask for.

    :param posts: of the job, by their start.
    :param after: so many failures in a row are an incident.
    """
    counts = {FAILING: _Count(), RECOVERED: _Count()}
    streak = _Count()
    for post, following in zip_longest(posts, posts[1:]):
        if not post.done:
            gap = None if following is None else following.start - post.start
            recorded = gap is not None and gap < bounds.lease - SOONER
            streak.add(recorded, True)
        elif following is None or following.run != post.run:  # else it was not recorded
            least, most = streak.least >= after, streak.most >= after
            counts[FAILING].add(least, most)
            counts[RECOVERED].add(least, most)
            streak = _Count()
    counts[FAILING].add(streak.least >= after, streak.most >= after)
    return counts
