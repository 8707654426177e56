"""
A replay: the run of a job, made once more as a one-off job of its own. Pure.

The replay sends what the job would send now. Of a job that is gone, it sends what the run's record
knows: the path, the body and the endpoint. An example::

    run 0f3a...c2-17 of the job ("mail", "7"), scheduled for 09:00, has failed
    its replay is the job ("mail", "01JE..."), whose payload is "7", scheduled for 09:00, due now
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from dalga.errors import ReplayImpossible, shown
from dalga.model.delivery import (
    NO_NOTES,
    PLAIN,
    Delivery,
    Notes,
    Payload,
    PayloadKind,
    has_content,
)
from dalga.model.job import Job
from dalga.model.options import Options
from dalga.model.plan import Plan
from dalga.model.record import Record
from dalga.model.schedule import Once
from dalga.model.zone import Zone

#: The options of a job that say what is sent, how long it may take, what becomes of the answer, and
#: who is told of a failure.
#: The others say when a job runs, and its replay runs once, now.
_KEPT = (
    *("success", "gone", "give_up", "endpoint", "timeout", "save_response"),
    *("alert_after", "alert_url"),
)


def replay_of(record: Record, job: Job | None, now: datetime, endpoints: Collection[str]) -> Plan:
    """
    The plan of a replay. It is due now, also if its `first` is past.

    :param record: of a run that has ended.
    :param job: the run's job as it is now; None if it is gone.
    :param now: the database's time.
    :param endpoints: the names of the endpoints of the configuration.
    :raises ReplayImpossible: if the request can't be made again.
    """
    delivery, notes, options = PLAIN, NO_NOTES, Options(endpoint=record.endpoint)
    if job is not None:
        delivery, notes, options = job.delivery, job.notes, _options_of(job)
    elif record.detailed:
        raise ReplayImpossible(_gone(record))
    if options.endpoint not in endpoints:
        raise ReplayImpossible(
            f"the run {record.run_id} can't be replayed: its endpoint {shown(options.endpoint)} is "
            "not in the configuration of this instance"
        )
    return Plan(
        schedule=Once(Zone()),
        options=options,
        anchor=now,
        # A clock that was set back may have left a time that is still to come.
        first=min(record.scheduled, now),
        delivery=_delivery_of(delivery, record),
        notes=NO_NOTES if notes == NO_NOTES else _notes_of(notes),
    )


def _options_of(job: Job) -> Options:
    return Options(**{name: getattr(job.options, name) for name in _KEPT})


def _delivery_of(delivery: Delivery, record: Record) -> Delivery:
    """The replay's body is its name, so what the job's body was becomes its payload."""
    payload = delivery.payload
    if payload is None and has_content(delivery.method, None):
        payload = Payload(record.body.encode(), PayloadKind.TEXT)
    return replace(delivery, payload=payload, replay_of=record.run_id)


def _notes_of(notes: Notes) -> Notes:
    """A replay is not disabled, even if its job is."""
    kept = replace(notes, disabled=None)
    return NO_NOTES if kept == NO_NOTES else kept


def _gone(record: Record) -> str:
    sentence = (
        f"the run {record.run_id} can't be replayed: its job is gone, and its request had a part "
        "that only the job knew, such as a payload"
    )
    if record.replay_of is None:
        return f"{sentence}; PUT the job, and replay the run then"
    return f"{sentence}; it was itself a replay: replay the run {record.replay_of}"
