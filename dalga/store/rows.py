"""
From a row to a Job or a Run, or to what is wrong with it. Pure.

Anybody may write to the table by SQL, so nothing in a row is taken for granted (P6).
"""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from dalga.errors import InvalidRequest
from dalga.model.delivery import NO_NOTES, PLAIN, Delivery, Notes
from dalga.model.fields import kept_members, load_members
from dalga.model.job import AT_REST, Job, Standing, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.options import Options
from dalga.model.run import (
    LEASE_MARGIN,
    Cause,
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
)
from dalga.model.schedule import Schedule, schedule_from_text
from dalga.model.zone import Zone, check_location
from dalga.store.dialect import instant_from_text
from dalga.store.extras import NO_DETAILS, Details
from dalga.store.selected import (
    DueRow,
    FoundText,
    JobRow,
    LeaseRow,
    LeaseText,
    Marks,
    RunRow,
    TextRow,
)
from dalga.store.values import text_of, text_or_none

#: The length of a claim's token, in bytes.
TOKEN_LENGTH = 16

#: The longest error text that is kept, in characters.
MAX_ERROR = 255

#: The largest count that a column of each engine holds. Counts stop there.
MAX_COUNT = 2**32 - 1

#: The largest version that a column of each engine holds.
MAX_VERSION = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def version_at(now: datetime) -> int:
    """
    The version of a job that is written at a time: microseconds since 1970.

    :param now: the database's time.
    """
    return (now - _EPOCH) // timedelta(microseconds=1)


class Override(IntEnum):
    """
    What a user did to a job while a run of it was under way, for the end of that run to heed (P4).
    """

    NONE = 0
    RESCHEDULED = 1
    DELETED = 2
    TRIGGERED = 3
    #: Scheduled anew, to run at once.
    RUN_NOW = 4


#: The overrides that ask for a run at once. That run has to wait for the end of the lease. A row
#: keeps the override until the run is claimed.
WAITED = (Override.TRIGGERED, Override.RUN_NOW)


class Unreadable(ValueError):
    """A row that can't be understood; the sentence says why."""


def was_recorded(end: End, row: Marks | None) -> bool:
    """
    Whether an end was written, by how its row looks now.

    The question comes up after a COMMIT that got no answer, if the row has not the run's token any
    more. Either that COMMIT was done, or the lease has ended since, and another instance has
    claimed the run.

    :param row: None if the row is gone.
    """
    run, verdict = end.run, end.verdict
    if row is None or isinstance(verdict, Delete):
        return row is None and isinstance(verdict, Delete)
    same_run = bytes(row.run or b"").hex() == run.id.partition("-")[0]
    claims = 0 if row.token is None else 1
    error = text_or_none(row.error)
    match verdict:
        case Reschedule() | Skip() | Finish() | Disable():
            return not same_run  # another instance's claim would have kept the run
        case Stop():
            return same_run and not claims and row.standing == Standing.STOPPED
        case Retry(_, words):
            # `attempts` is the same if the retry was written and claimed since, and if nothing was
            # written and the run was claimed after its lease. The error tells the two apart.
            return same_run and row.attempts - claims == run.attempt and error == words[:MAX_ERROR]
        case GiveBack():
            return same_run and row.attempts - claims == run.attempt - 1


def read_job(
    row: JobRow,
    key: RawKey,
    now: datetime,
    read_instant: Callable[[object], datetime],
    details: Details | ValueError = NO_DETAILS,
) -> Job | UnreadableJob:
    """
    The job in a row that was looked up by its key.

    :param details: those of the job, or what is wrong with them.
    """
    error = text_or_none(row.error)
    try:
        disabled = is_true("disabled", row.disabled)
        standing = _standing(row.standing)
        if row.due is None and not disabled and standing not in AT_REST:
            return UnreadableJob(key, str(error or "the row has no due time"))
        due = None if row.due is None else instant("due", row.due, read_instant)
        valid = JobKey(*key)
        count("extras", row.extras)
        if isinstance(details, ValueError):
            raise details
        schedule, options = _terms(row)
        return Job(
            key=valid,
            schedule=schedule,
            options=options,
            anchor=instant("anchor", row.anchor, read_instant),
            scheduled=instant("scheduled", row.scheduled, read_instant),
            due=due,
            attempts=count("attempts", row.attempts),
            running=row.token is not None and due is not None and due > now,
            error=None if error is None else str(error),
            successes=count("successes", row.successes),
            skipped=count("skipped", row.skipped),
            standing=standing,
            disabled=disabled,
            waited=row.override in WAITED,
            delivery=details.delivery,
            notes=details.notes,
            version=version("version", row.version),
        )
    except (ValueError, InvalidRequest) as problem:
        return UnreadableJob(key, str(problem))


def timeout_of(row: DueRow, default: float, timeouts: Mapping[str, float]) -> float:
    """
    How long a POST of a due row's job may take, in seconds.

    :param default: for an endpoint that `timeouts` does not name, and for a row that can't be read.
    :param timeouts: by the name of the endpoint.
    """
    try:
        options = options_of(row.options)
    except Unreadable:
        return default
    return _least(timeouts.get(options.endpoint, default), options)


def _least(timeout: float, options: Options) -> float:
    """
    :param timeout: of the endpoint, in seconds.
    :return: the job's own time limit, if that is less.
    """
    own = options.timeout
    return timeout if own is None else min(timeout, own.total_seconds())


def read_run(
    row: RunRow,
    before: DueRow,
    token: bytes,
    now: datetime,
    timeout: float,
    lease_ends: float,
    read_instant: Callable[[object], datetime],
) -> Run:
    """
    The run in a row that was just claimed.

    :param before: the row as it was before the claim.
    :param timeout: what the lease was made for, in seconds.
    :param lease_ends: in seconds of the steady clock.
    :raises Unreadable: if the row can't be understood.
    """
    try:
        key = JobKey(text("path", row.path), text("body", row.body))
        schedule, options = _terms(row)
        # Validated here too, though no run needs them, so that claim and GET agree.
        count("skipped", row.skipped)
        count("extras", row.extras)
        _standing(row.standing)
        return Run(
            row=row.id,
            token=token,
            key=key,
            schedule=schedule,
            options=options,
            anchor=instant("anchor", row.anchor, read_instant),
            scheduled=instant("scheduled", row.scheduled, read_instant),
            due=instant("due", before.due, read_instant),
            waited=before.override in WAITED,
            id=f"{run_token(row.run).hex()}-{row.id}",
            attempt=count("attempts", row.attempts),
            started=instant("started", row.started, read_instant),
            successes=count("successes", row.successes),
            claimed=now,
            lease_ends=lease_ends,
            payload=key.body.encode(),
            timeout=timeout,
            version=version("version", row.version),
            cause=_cause(row.cause),
        )
    except (ValueError, InvalidRequest) as problem:
        raise Unreadable(str(problem)) from None


#: Overrides of a row that a claim takes for a run, and those of a run that had to wait.
_TAKEN = frozenset(str(int(each)) for each in Override if each is not Override.DELETED)
_TAKEN_WAITED = frozenset(str(int(each)) for each in WAITED)
_STANDING = frozenset(str(int(each)) for each in Standing)
#: Of a run that waits, by their texts.
_CAUSES = {str(int(each)): each for each in Cause if each is not Cause.LATE}

#: A claim's token, as `Dialect.hexadecimal` gives it.
_HEXADECIMAL = re.compile(rf"X'[0-9A-F]{{{2 * TOKEN_LENGTH}}}'")


def run_from_text(
    row: TextRow,
    token: bytes,
    now: datetime,
    since: float,
    timeout: float,
    timeouts: Mapping[str, float],
) -> tuple[Run, int, bool] | None:
    """
    The run in a row that a claim has found (`FoundText`), as it is once the claim has taken it; the
    row's `extras`; and whether an earlier claim's lease has ended without a record. The run is that
    of a job without details.

    :param since: from when the lease is counted, in seconds of the steady clock.
    :param timeout: see `timeout_of`, as for `timeouts`.
    :return: None if there is nothing to POST, or if anything about the row is unusual. The claim
        reads the columns then, and `read_run` says what is wrong with them.
    """
    try:
        (
            due,
            leased,
            override,
            disabled,
            standing,
            skipped,
            attempts,
            successes,
            version,
            extras,
            cause,
            length,
            scheduled,
            anchor,
            started,
            run,
            schedule,
            location,
            options,
            path,
            body,
        ) = row.columns.decode().split("\n", len(FoundText._fields) - 1)
        payload = body.encode()
        if (
            int(length) != len(payload)
            or disabled != "0"
            or override not in _TAKEN
            or standing not in _STANDING
            or cause not in _CAUSES
            or not f"{attempts}{successes}{skipped}{version}{extras}".isdigit()
        ):
            return None
        attempt, succeeded = int(attempts) + 1, int(successes)
        at = instant_from_text(scheduled)
        if (
            attempt > MAX_COUNT
            or succeeded > MAX_COUNT
            or int(skipped) > MAX_COUNT
            or (at > now and attempt == 1)
            or not (run == "NULL" or _HEXADECIMAL.fullmatch(run))
        ):
            return None
        terms = _terms_from_text(schedule, location, options)
        timeout = timeouts.get(terms[1].endpoint, timeout)
        if terms[1].timeout is not None:
            timeout = _least(timeout, terms[1])
        # By their places: by their names it takes twice as long.
        run_of_row = Run(
            row.id,
            token,
            JobKey(path, body),
            terms[0],
            terms[1],
            at if anchor == scheduled else instant_from_text(anchor),
            at,
            at if due == scheduled else instant_from_text(due),
            override in _TAKEN_WAITED,
            f"{token.hex() if run == 'NULL' else run[2:-1].lower()}-{row.id}",
            attempt,
            now if started == "NULL" else instant_from_text(started[1:-1]),
            succeeded,
            now,
            since + timeout + LEASE_MARGIN,
            payload,
            timeout,
            PLAIN,
            int(version),
            _CAUSES[cause],
        )
        return run_of_row, 0 if extras == "0" else int(extras), leased == "1"
    except (ValueError, InvalidRequest):
        return None


def lease_from_text(row: TextRow) -> LeaseRow | None:
    """What the row of a run that has ended holds (`LeaseText`). None if anything is unusual."""
    try:
        override, token, disabled, version, extras, streak, alerted, options = row.columns.split(
            b"\n", len(LeaseText._fields) - 1
        )
        if token == b"NULL":
            claim = None
        elif token.startswith(b"X'"):
            claim = unhexlify(token[2:-1])
        else:
            return None
        return LeaseRow(
            row.id,
            claim,
            int(override),
            int(disabled),
            options,
            int(version),
            0 if extras == b"0" else int(extras),
            0 if streak == b"0" else int(streak),
            0 if alerted == b"0" else int(alerted),
        )
    except ValueError:
        return None


def shown_key(path: object, body: object) -> RawKey:
    """The key in a row, to show it: as far as it is text."""
    return RawKey(text_of(path), text_of(body))


class _Terms(NamedTuple):
    schedule: Schedule
    options: Options
    delivery: Delivery = PLAIN
    notes: Notes = NO_NOTES


class TermsText(NamedTuple):
    """What the columns of these names hold."""

    schedule: str
    location: str
    options: str


def terms_text(schedule: Schedule, options: Options) -> TermsText:
    """How a schedule and options are written in a row."""
    members = kept_members(_Terms(schedule, options))
    text = json.dumps(members, separators=(",", ":")) if members else ""
    return TermsText(schedule.text, schedule.zone.location, text)


def _terms(row: JobRow | RunRow) -> tuple[Schedule, Options]:
    """:raises ValueError: with what is wrong with them."""
    return _terms_from_text(
        text("schedule", row.schedule),
        text("location", row.location),
        text("options", row.options),
    )


@lru_cache(maxsize=4096)
def _terms_from_text(schedule: str, location: str, options: str) -> tuple[Schedule, Options]:
    """
    What `terms_text` wrote.

    :raises ValueError: with what is wrong with it.
    """
    try:
        check_location(location)
    except ValueError as problem:
        raise Unreadable(f"location is {location[:40]!r}, which {problem}") from None
    chosen, rules = _options_from_text(options)
    return schedule_from_text(schedule, Zone(location, **rules)), chosen


@lru_cache(maxsize=4096)
def options_of(value: object) -> Options:
    """
    What the column options holds.

    :raises Unreadable: if it can't be read.
    """
    return _options_from_text(text("options", value))[0]


@lru_cache(maxsize=4096)
def _options_from_text(options: str) -> tuple[Options, dict[str, Any]]:
    """
    :return: see `load_members`.
    :raises Unreadable: with what is wrong with it.
    """
    if not options:
        return Options(), {}
    try:
        members = json.loads(options)
        if not isinstance(members, dict):
            raise ValueError("it is no JSON object")
        return load_members(members)
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise Unreadable(f"options is {options[:40]!r}, which can't be read: {problem}") from None


def _standing(value: object) -> Standing:
    """:raises Unreadable: if the value is none."""
    try:
        return Standing(count("standing", value))
    except ValueError:
        raise Unreadable(f"standing is {value!r:.40}, which is none of 0 to 4") from None


def _cause(value: object) -> Cause:
    """:raises Unreadable: if the value is none."""
    found = _CAUSES.get(str(count("cause", value)))
    if found is None:
        raise Unreadable(f"cause is {value!r:.40}, which is none of 0 to 2")
    return found


def run_token(value: object) -> bytes:
    """:raises Unreadable: if the value is not the token of a claim."""
    if not isinstance(value, bytes) or len(value) != TOKEN_LENGTH:
        raise Unreadable(f"run is {value!r:.40}, which is not {TOKEN_LENGTH} bytes")
    return value


def count(column: str, value: object) -> int:
    """:raises Unreadable: if the value is not a count."""
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise Unreadable(f"{column} is {value!r:.40}, which is not a count")
    return value


def version(column: str, value: object) -> int:
    """:raises Unreadable: if the value is not a job's version."""
    if not isinstance(value, int) or not 0 <= value <= MAX_VERSION:
        raise Unreadable(f"{column} is {value!r:.40}, which is not a version")
    return value


def is_true(column: str, value: object) -> bool:
    """:raises Unreadable: if the value is not a number that says yes or no."""
    return bool(count(column, value))


def text(column: str, value: object) -> str:
    """:raises Unreadable: if the value is not text in UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable(f"{column} is {value[:40]!r}, which is not UTF-8") from None
    if not isinstance(value, str):
        raise Unreadable(f"{column} is {value!r}, which is not text")
    return value


def instant(column: str, value: object, read_instant: Callable[[object], datetime]) -> datetime:
    """:raises Unreadable: if the value is no time."""
    try:
        return read_instant(value)
    except ValueError as problem:
        raise Unreadable(f"{column} {problem}") from None
