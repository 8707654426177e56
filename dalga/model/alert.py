"""
Alerts: what is said of jobs, endpoints and the scheduler when something breaks and when it is well
again, to which target, and what became of an alert. Pure.

docs/alerts.md shows the JSON of an alert, which `content` writes. It stays as it is: programs read
it. `slack` makes a message for people of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from dalga.model.address import DEFAULT_TARGET, NO_TARGET
from dalga.model.attempt import ErrorKind
from dalga.model.key import RawKey
from dalga.model.schedule import exact_timestamp, timestamp

#: Jobs that a summary names, at most.
NAMED = 10


class Event(StrEnum):
    """What an alert says."""

    JOB_FAILING = "job.failing"
    JOB_GIVEN_UP = "job.given_up"
    JOB_RECOVERED = "job.recovered"
    JOB_REMOVED = "job.removed"
    JOB_SILENT = "job.silent"
    JOB_PROBLEM = "job.problem"
    ENDPOINT_DOWN = "endpoint.down"
    ENDPOINT_UP = "endpoint.up"
    LAGGING = "scheduler.lagging"
    CAUGHT_UP = "scheduler.recovered"
    SUMMARY = "alerts.summary"


class Alert(NamedTuple):
    """
    One alert. Instants are of the database's clock (aware, UTC). What says nothing about the event
    is None.
    """

    event: Event
    #: When it happened.
    at: datetime
    job: RawKey | None = None
    endpoint: str | None = None
    run_id: str | None = None
    scheduled: datetime | None = None
    attempt: int | None = None
    #: How many attempts have failed in a row; before the success, of JOB_RECOVERED.
    streak: int | None = None
    status: int | None = None
    error_kind: ErrorKind | None = None
    error: str | None = None
    next_run: datetime | None = None
    #: Since when.
    since: datetime | None = None
    #: Of SUMMARY: how many alerts of each event it stands for.
    counts: Mapping[str, int] | None = None
    #: Of SUMMARY: some of their jobs.
    jobs: tuple[RawKey, ...] = ()


def content(alert: Alert, id: str, instance: str) -> str:
    """
    The JSON of an alert.

    :param id: of the alert.
    :param instance: which instance has seen it.
    """
    members: dict[str, Any] = {
        "id": id,
        "event": str(alert.event),
        "at": exact_timestamp(alert.at),
        "message": message(alert),
        "job": alert.job and _key(alert.job),
        "endpoint": alert.endpoint,
        "run_id": alert.run_id,
        "scheduled": _time(alert.scheduled),
        "attempt": alert.attempt,
        "streak": alert.streak,
        "status": alert.status,
        "error_kind": alert.error_kind and str(alert.error_kind),
        "error": alert.error,
        "next_run": _time(alert.next_run),
        "since": _time(alert.since),
        "instance": instance,
    }
    if alert.event is Event.SUMMARY:
        members["counts"] = alert.counts
        members["jobs"] = [_key(job) for job in alert.jobs[:NAMED]]
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


def _key(key: RawKey) -> dict[str, str]:
    return {"path": key.path, "body": key.body}


def _time(instant: datetime | None) -> str | None:
    return None if instant is None else exact_timestamp(instant)


def message(alert: Alert) -> str:
    """A sentence for people, or two."""
    job = f"The job {alert.job.path}/{alert.job.body}" if alert.job else "A job"
    error = f" {alert.error}." if alert.error else ""
    since = f" since {timestamp(alert.since)}" if alert.since else ""
    match alert.event:
        case Event.JOB_FAILING:
            return f"{job} fails: {_attempts(alert.streak)}.{error}"
        case Event.JOB_GIVEN_UP:
            return f"{job} has a run that was given up after {_attempts(alert.attempt)}.{error}"
        case Event.JOB_RECOVERED:
            return f"{job} is well again: a run has succeeded."
        case Event.JOB_REMOVED:
            return f"{job} was removed by an answer of its endpoint.{error}"
        case Event.JOB_SILENT:
            return f"{job} has had no success{since}: its expect-within is over."
        case Event.JOB_PROBLEM:
            return f"{job} can't be run, and was set aside: {alert.error}"
        case Event.ENDPOINT_DOWN:
            return f"The endpoint {alert.endpoint} is down: nearly all attempts fail.{error}"
        case Event.ENDPOINT_UP:
            return f"The endpoint {alert.endpoint} is up again. It was down{since}."
        case Event.LAGGING:
            return f"Runs are late: due jobs have waited{since} to be claimed."
        case Event.CAUGHT_UP:
            return f"Runs are in time again. They were late{since}."
        case Event.SUMMARY:
            return _summary(alert)


def _attempts(number: int | None) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _summary(alert: Alert) -> str:
    counts = alert.counts or {}
    of = f" of the endpoint {alert.endpoint}" if alert.endpoint else ""
    parts = ", ".join(f"{count} {event}" for event, count in counts.items())
    jobs = ", ".join(f"{job.path}/{job.body}" for job in alert.jobs[:NAMED])
    more = " and others" if jobs and sum(counts.values()) > len(alert.jobs[:NAMED]) else ""
    return f"{sum(counts.values())} more alerts{of}: {parts}." + (f" {jobs}{more}." if jobs else "")


def slack(content: Mapping[str, Any]) -> str:
    """
    A message for Slack's incoming webhooks, of the JSON of an alert.

    :param content: what `content` has written, read.
    """
    text = _escaped(str(content.get("message", "")))
    about = [
        f"{name}: {_escaped(str(content[name]))}"
        for name in ("at", "endpoint", "run_id", "error_kind", "next_run", "instance", "id")
        if content.get(name) is not None
    ]
    event = _escaped(str(content.get("event", "")))
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{event}* {text}"[:3000]}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(about)[:3000]}]},
    ]
    return json.dumps({"text": f"{event}: {text}", "blocks": blocks}, ensure_ascii=False)


#: What calls everybody in Mattermost and Discord, which take Slack's messages, too.
_EVERYBODY = re.compile("@(?=all|channel|everyone|here)", re.IGNORECASE)


def _escaped(text: str) -> str:
    """
    No job's name can call people: Slack's three characters with a meaning of their own are escaped,
    and a space of no width takes the meaning from words that call everybody elsewhere.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _EVERYBODY.sub("@\u200b", text)


def summary(
    at: datetime,
    endpoint: str | None,
    alerts: Iterable[tuple[str, RawKey | None]],
    before: Mapping[str, Any] = MappingProxyType({}),
) -> Alert:
    """
    The alert that stands for others.

    :param alerts: the event of each, and its job.
    :param before: the members of a summary that is to stand for these as well.
    """
    counts: dict[str, int] = {}
    if isinstance(known := before.get("counts"), dict):
        counts.update({event: n for event, n in known.items() if isinstance(n, int)})
    jobs: dict[RawKey, None] = {}
    named = before.get("jobs")
    for job in named if isinstance(named, list) else ():
        if isinstance(job, dict) and {"path", "body"} <= job.keys():
            jobs[RawKey(str(job["path"]), str(job["body"]))] = None
    for event, key in alerts:
        counts[event] = counts.get(event, 0) + 1
        if key is not None and len(jobs) < NAMED:
            jobs[key] = None
    return Alert(Event.SUMMARY, at, endpoint=endpoint, counts=counts, jobs=tuple(jobs))


@dataclass(frozen=True)
class Targets:
    """Where alerts are sent, by the configuration of this instance."""

    #: The names of all targets.
    names: Collection[str] = ()
    #: The target of each endpoint that names one, or `NO_TARGET`, by the endpoints' names.
    of_endpoints: Mapping[str, str] = field(default_factory=dict)

    def of_job(self, chosen: str | None, endpoint: str | None) -> str | None:
        """
        The target of an alert about a job; None for none.

        :param chosen: the job's `alert_url`. A name that the configuration has no more counts as
            none, so that the alert is not lost.
        """
        if chosen == NO_TARGET:
            return None
        return chosen if chosen in self.names else self.of_endpoint(endpoint)

    def of_endpoint(self, endpoint: str | None) -> str | None:
        """The target of an alert about an endpoint, or, for None, about the scheduler."""
        name = DEFAULT_TARGET if endpoint is None else self.of_endpoints.get(endpoint)
        name = name or DEFAULT_TARGET
        return name if name in self.names else None


#: Alerts are sent nowhere.
NO_TARGETS = Targets()


def concerns(members: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """
    Which jobs an alert tells of, so that it is for those who may see these: their path and their
    endpoint, None for all. A summary tells of all jobs of an endpoint, or of all jobs.

    :param members: of the JSON of an alert.
    """
    job, endpoint = members.get("job"), members.get("endpoint")
    path = job.get("path") if isinstance(job, dict) else None
    return (
        path if isinstance(path, str) else None,
        endpoint if isinstance(endpoint, str) else None,
    )


class AlertState(StrEnum):
    """What became of an alert."""

    WAITING = "waiting"
    SENT = "sent"
    #: Another one stands for it.
    SUMMARIZED = "summarized"
    #: It did not arrive in a day.
    GIVEN_UP = "given_up"


class KeptAlert(NamedTuple):
    """An alert, for people to see."""

    #: Its JSON.
    members: dict[str, Any]
    target: str
    state: AlertState
    #: How often it was sent, and when last.
    attempts: int
    sent: datetime | None
    #: Why the last attempt failed, or which alert stands for it.
    error: str | None
