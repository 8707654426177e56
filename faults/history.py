"""
What happened, as the two sides that can know it remember it: the endpoint, and the client.

All times are seconds since the epoch by the clock of the machine that the bench runs on, which is
the database's too. A run's scheduled time is in whole seconds, as the header that carries it; what
was said of the job tells it more exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

#: A job's path and body.
Key = tuple[str, str]


#: How the path of a job ends whose PUTs say what its requests are made of. All such jobs have the
#: same body, `BODY`: a request tells its job by the path alone.
SAYING = "/saying"
BODY = "body"


class Says(NamedTuple):
    """What a job's requests are made of, beside its path."""

    method: str
    #: A header that no other PUT of any job says; empty for none.
    header: str
    #: The content's digest and its size in octets.
    content: str


def says(method: str, header: str, content: bytes) -> Says:
    digest = blake2b(content, digest_size=8).hexdigest()
    return Says(method, header, f"{digest}, {len(content)} octets")


def plainly(body: str) -> Says:
    """What the requests of a job are made of whose PUT has not said it."""
    return says("POST", "", body.encode())


@dataclass(eq=False)
class Post:
    """One POST as the endpoint saw it (any request is taken for one)."""

    path: str
    body: str
    run: str
    attempt: int
    scheduled: int
    instance: str
    #: The whole request has arrived.
    start: float
    #: The answer has been sent, or the connection was lost; None while it is in flight.
    end: float | None = None
    #: What was answered; None where the connection was lost before.
    status: int | None = None
    #: What was answered where an answer has no end, as a client may go by the status and leave.
    begun: int | None = None
    #: What it was made of; None where nobody looked.
    says: Says | None = None

    @property
    def key(self) -> Key:
        return self.path, self.body

    @property
    def done(self) -> bool:
        """Whether the endpoint has done what the run is for."""
        return 200 in (self.status, self.begun)


class Verb(StrEnum):
    """What a client can say of a job."""

    PUT = "put"
    TRIGGER = "trigger"
    DISABLE = "disable"
    ENABLE = "enable"
    DELETE = "delete"
    #: Change what the job's requests are made of, and nothing else.
    AMEND = "amend"


@dataclass(frozen=True, slots=True)
class Said:
    """One request of a client, and whether it was acknowledged."""

    key: Key
    verb: Verb
    asked: float
    #: When it was acknowledged; None where it was not, so that nobody knows what became of it.
    answered: float | None = None
    #: Of a PUT: seconds between two runs, 0 for a job that runs once.
    interval: int = 0
    #: Of a PUT: from when it is done to the first run, in seconds.
    delay: float = 0
    #: The next run that the answer showed, in whole seconds.
    next_run: int | None = None
    #: The answer's status where that was that there is no such job (404), or a disabled one (409).
    refused: int | None = None
    #: Of a PUT or an amendment that says it: what the job's requests are made of. None: they are
    #: plain.
    says: Says | None = None
    #: Whether it was put into the table past all instances.
    by_sql: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was wrong from `start`, and may have made things late until `end`."""

    kind: str
    start: float
    end: float
    #: Whether a run that was done may have been POSTed again because of it.
    repeats: bool = True
    #: The instance that was held, where it was one: it has seen nothing before the end.
    held: str = ""
    #: Whether the database may have lost what it had committed.
    loses: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What the table holds of a job at the end."""

    key: Key
    disabled: bool
    leased: bool
    #: Deleted during a run, and still to be removed.
    deleted: bool
    #: To the microsecond; None where it is no time.
    scheduled: float | None
    #: When it may be claimed next; None for never.
    due: float | None
    #: What its requests are made of by the tables beside, and its tags; None where nobody looked.
    says: Says | None = None
    tags: tuple[str, ...] = ()
    #: The id of its run that has begun and has not ended; None where there is none.
    run: str | None = None
    #: How many attempts of that run have been claimed.
    attempts: int = 0
    #: Whether it says that this run has an open record.
    opened: bool = False


class Tried(NamedTuple):
    """One attempt, as a record tells of it."""

    number: int
    instance: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """What the table of runs holds of one run at the end."""

    key: Key
    run: str
    #: Dalga's word: succeeded, given_up ...; None where the record is open: the run has failed, and
    #: is to be tried again.
    result: str | None
    scheduled: float | None
    #: When its first POST began, and when its last attempt, or the run itself, ended.
    started: float | None
    ended: float | None
    #: The number of the last attempt, its status and its instance.
    attempts: int
    status: int | None
    instance: str
    #: The attempts that it tells of one by one, if it does.
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """One delivery of an alert, as its receiver saw it."""

    #: The same on each delivery of an alert.
    id: str
    event: str
    #: The job that it is about; None where it is about no job.
    key: Key | None
    #: When the alert was made, by the database's clock, and when it was delivered.
    made: float
    delivered: float


class Entry(NamedTuple):
    """An entry of the audit list at the end."""

    key: Key
    verb: str


@dataclass(slots=True)
class History:
    """All that the checker is told."""

    posts: list[Post] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    #: None where the client had no token.
    entries: list[Entry] | None = None
    #: How many attempts of a job have to fail in a row for an alert; 0 where nobody is told.
    alert_after: int = 0
    #: Jobs of which nobody knows what was said last: when they run is their own matter.
    foreign: set[Key] = field(default_factory=set)
    #: When the world was stopped: what was due shortly before may not have run.
    ended: float = 0.0


def overlapping(faults: Sequence[Fault], start: float, end: float) -> list[Fault]:
    """The faults that have to do with some time."""
    return [fault for fault in faults if fault.start <= end and fault.end >= start]
