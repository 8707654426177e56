"""Instants, requests and runs that the tests of the model take as examples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dalga.model.duration import duration_from_text, seconds
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.plan import RawRequest, ScheduleRequest
from dalga.model.retry import RetryPolicy
from dalga.model.run import (
    End,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    RunPolicy,
    Skip,
    Stop,
    Verdict,
)
from dalga.model.schedule import Every
from dalga.model.zone import Zone

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
THEN = datetime(2030, 1, 1, tzinfo=UTC)
PAST = datetime(2001, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

DAILY = duration_from_text("P1D")
RIGA = Zone("Europe/Riga")

KEY = JobKey("check_feed", "1234")

EXACT = RunPolicy(RetryPolicy(jitter=0))

RUN = Run(
    row=1,
    token=b"token",
    key=KEY,
    schedule=Every(MINUTE),
    options=Options(),
    anchor=NOW - SECOND,
    scheduled=NOW - SECOND,
    due=NOW - SECOND,
    waited=False,
    id="1",
    attempt=1,
    started=NOW,
    successes=0,
    claimed=NOW,
    lease_ends=20.0,
    payload=b"1234",
    timeout=10.0,
)
OK = Outcome(200, 0.1)
FAILURE = Outcome(500, 0.1)
ERROR = "500 Internal Server Error"


def asking(**parameters: object) -> ScheduleRequest:
    """What a PUT asks for that is accepted; an interval in seconds may be a number."""
    return ScheduleRequest.of(asking_anything(**parameters))


def asking_anything(**parameters: object) -> RawRequest:
    """What a PUT asks for, accepted or not."""
    interval = parameters.get("interval")
    if isinstance(interval, int):
        parameters["interval"] = seconds(interval)
    if isinstance(interval, str):
        parameters["interval"] = duration_from_text(interval)
    return RawRequest(**parameters)  # type: ignore[arg-type]


def ended(run: Run, verdict: Verdict) -> End:
    """The end of a run with that verdict, of an outcome that comes to it."""
    match verdict:
        case Skip() | GiveBack():
            return End(run, None, verdict)
        case Retry() | Stop() | Reschedule(_, _, str()):
            return End(run, FAILURE, verdict)
    return End(run, OK, verdict)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
