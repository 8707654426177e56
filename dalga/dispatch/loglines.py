"""
The lines that dispatch logs about runs: skips, ends of attempts, and what a record did otherwise.

The functions here only word and emit. What happened, and whether it is worth a line, is decided by
their callers.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel

from dalga.log import is_logged, logger
from dalga.model.answers import Meaning
from dalga.model.delivery import PLAIN, Method
from dalga.model.run import (
    Delete,
    Disable,
    End,
    Finish,
    GiveBack,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    Verdict,
    reason,
)
from dalga.model.schedule import timestamp
from dalga.store import Recorded

log = logger(__name__)

_GONE = "job deleted: the endpoint does not know it"

#: The meanings of answers that are no failures.
_FINE = (Meaning.SUCCEED, Meaning.REMOVE, Meaning.DISABLE)
#: An enum's members are looked up by a call of Python.
_REMOVE = Meaning.REMOVE
_POST = Method.POST

#: The line of an attempt's start. It names a method other than POST, which a reader would expect.
_START = "{path!r} {body!r}: run {run_id}, attempt {attempt} starts"
_START_OF_ANOTHER = _START.replace("run {run_id}", "{method}: run {run_id}")


def fields(run: Run) -> dict[str, Any]:
    """What names a run and its attempt in the format of a line."""
    return {
        "path": run.key.path,
        "body": run.key.body,
        "run_id": run.id,
        "attempt": run.attempt,
        "endpoint": run.options.endpoint,
    }


def log_skip(end: End) -> None:
    """The line of a run that was claimed too late, and is not POSTed."""
    run, verdict = end.run, end.verdict
    # Not `_then`: that the run is skipped is said already.
    next_run = verdict.scheduled if isinstance(verdict, Skip) else None
    then = _then(verdict) if next_run is None else f"next run {timestamp(next_run)}"
    log.warn(
        "{path!r} {body!r}: skipped, {late:.0f} s late; {then}",
        late=(run.claimed - run.late_since).total_seconds(),
        then=then,
        **fields(run),
    )


def log_elsewhere(run: Run) -> None:
    """The line of runs whose endpoint this instance has not. `run` is the first of them."""
    log.warn(
        "{path!r} {body!r}: not started, its endpoint {endpoint!r} is not in the configuration of "
        "this instance; it is due again in a while, and so is each other run of that endpoint",
        **fields(run),
    )


def log_end(end: End) -> None:
    """The one line that each attempt leaves in the log."""
    run, outcome, meaning = end.run, end.outcome, end.meaning
    assert outcome is not None
    assert meaning is not None
    gone = meaning is _REMOVE and outcome.meaning is None
    fine = meaning in _FINE
    level = LogLevel.info if fine else LogLevel.warn
    if not is_logged(level):
        return
    method = _POST if run.delivery is PLAIN else run.delivery.method
    named = "" if method is _POST else f"{method}: "
    path, body = run.key
    attempt, elapsed = run.attempt, outcome.elapsed
    then = _GONE if gone else _then(end.verdict)
    # Each attempt comes here. So the keywords are written out: `fields` would be one more dict, and
    # `info` or `warn` another. And the text is made here: `str.format` takes three times as long.
    log.emit(
        level,
        "{text}",
        text=f"{path!r} {body!r}: {named}{reason(outcome, meaning)}, after {elapsed:.3f} s, "
        f"attempt {attempt}; {then}",
        path=path,
        body=body,
        method=method,
        endpoint=run.options.endpoint,
        run_id=run.id,
        attempt=attempt,
        status=outcome.status,
        error_kind=None if fine else end.error_kind,
        elapsed=elapsed,
    )


def log_start(run: Run) -> None:
    """The line of an attempt that starts, for those who look for mistakes."""
    method = run.delivery.method
    log.debug(
        _START if method is _POST else _START_OF_ANOTHER,
        method=method,
        **fields(run),
    )


def log_recorded(recorded: Recorded) -> None:
    """A line for each end that a record wrote otherwise than asked, or not at all."""
    for end in recorded.revised:
        log.info(
            "{path!r} {body!r}: the job's options were changed during run {run_id}; "
            "by those: {then}",
            then=_then(end.verdict),
            **fields(end.run),
        )
    for end in recorded.lost:
        log.warn(
            "{path!r} {body!r}: the end of run {run_id}, attempt {attempt}, is not recorded: "
            "its lease was over, and the run was taken by another, or the job was changed",
            **fields(end.run),
        )
    for end in recorded.overridden:
        log.info(
            "{path!r} {body!r}: the end of run {run_id} changes nothing, "
            "as the job was changed during the run",
            **fields(end.run),
        )
    for end in recorded.already:
        log.info(
            "{path!r} {body!r}: the end of run {run_id} is recorded already: "
            "only the database's answer was lost",
            **fields(end.run),
        )


def _then(verdict: Verdict) -> str:
    """Words for what follows a run. What follows most runs is asked for first."""
    match verdict:
        case Reschedule(scheduled, _, None):
            return f"next run {timestamp(scheduled)}"
        case Delete():
            return "job done"
        case Reschedule(scheduled):
            return f"given up, next run {timestamp(scheduled)}"
        case Skip(scheduled):
            return f"skipped, next run {timestamp(scheduled)}"
        case Retry(due):
            return f"again at {timestamp(due)}"
        case Stop():
            return "given up, and the job has stopped"
        case GiveBack():
            return "given back"
        case Disable():
            return "job disabled by its endpoint"
        case Finish():
            return "job done, and kept"
