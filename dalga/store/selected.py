"""
The rows that SELECTs give, as the drivers give them: each field is a column, or an expression of
its name. `dalga.store.rows` reads them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from dalga.store.dialect import instant_from_text
from dalga.store.extras import DetailsRow


class NowRow(NamedTuple):
    """The database's time."""

    now: Any
    #: Whether there are instances; None where the time is read without a look at their table.
    has_instances: Any


class DueTime(NamedTuple):
    """When a row is due."""

    #: The database's time.
    now: Any
    #: None in the one row that there is where nothing is due.
    due: Any


class DueRow(NamedTuple):
    """A row that a claim has found."""

    id: int
    due: Any
    override: Any
    token: Any
    options: Any
    extras: Any


class TextRow(NamedTuple):
    """
    A row that is read as one text. The drivers, and Python, take one text apart in a fraction of
    the time that as many columns take.
    """

    id: int
    #: The database's time.
    at: bytes
    #: The text of the columns, in octets. It is cut short if a column is NULL that can't be.
    columns: bytes

    @classmethod
    def read(cls, text: bytes) -> TextRow:
        """Of the one column that is selected: the time, the id and the text, in lines."""
        at, id, columns = text.split(b"\n", 2)
        return cls(int(id), at, columns)

    @property
    def now(self) -> datetime:
        """The database's time."""
        return instant_from_text(self.at.decode())


class FoundText(NamedTuple):
    """
    What a claim reads of a row that it finds, as one text (`Dialect.joined`).

    Each field is a column, or an expression of its name. The text of a job that runs each minute,
    and has no options (its lines in columns here)::

        2026-03-01 09:00:00.000000    0    0    0    0    0    0    7    1772355180000000    0    0
        5    2026-03-01 09:00:00.000000    2026-03-01 08:53:00.000000    NULL    NULL
        60    UTC    (an empty line)    reports    daily
    """

    due: str
    #: Whether an earlier claim has left its token: 0 or 1.
    leased: str
    override: str
    disabled: str
    standing: str
    skipped: str
    attempts: str
    successes: str
    version: str
    extras: str
    cause: str
    #: How many octets the body has.
    length: str
    scheduled: str
    anchor: str
    #: Quoted, or NULL.
    started: str
    #: See `Dialect.hexadecimal`.
    run: str
    schedule: str
    location: str
    options: str
    path: str
    #: The last one, as it may have line feeds. No other text may: where one has, what is taken for
    #: the body is longer than `length` says.
    body: str


class LeaseText(NamedTuple):
    """What a record reads of a row, as one text: see `LeaseRow`."""

    override: str
    #: See `Dialect.hexadecimal`.
    token: str
    disabled: str
    version: str
    extras: str
    streak: str
    alerted: str
    options: str


class KeyRow(NamedTuple):
    """Which job it is, and what it has in other tables."""

    id: int
    path: Any
    body: Any
    extras: Any


class KeptRow(NamedTuple):
    """What is kept of a request that came with an Idempotency-Key."""

    digest: Any
    #: The generated name of the job that was made, and its version then.
    body: Any
    version: Any
    #: The database's time of that.
    made: Any


class LeaseRow(NamedTuple):
    """What the record of a run goes by."""

    id: int
    token: Any
    override: Any
    disabled: Any
    options: Any
    version: Any
    extras: Any
    streak: Any
    alerted: Any


class OpenRow(NamedTuple):
    """Of a record on the shelf OPEN: what the record of the whole run takes of it."""

    job: int
    run: Any
    path: Any
    endpoint: Any
    attempts: Any
    cause: Any
    claimed: Any
    started: Any
    lateness: Any
    more: Any


class TokenRow(NamedTuple):
    """Who has claimed a row last."""

    id: int
    token: Any


class InstancesRow(NamedTuple):
    """Of the instances: how many are gone, and how many others are alive."""

    gone: int
    others: int


class NumberRow(NamedTuple):
    """A number: how many rows there are, or an id."""

    number: int


class CountsRow(NamedTuple):
    """What `Store.counts` counts."""

    instances: int
    #: The least due time that is past, if there is one.
    oldest: Any
    total: int
    pending: int
    set_aside: int
    running: int
    #: The greatest id; None where no row was counted.
    last: Any


class JobRow(NamedTuple):
    """The columns that make a job."""

    id: int
    path: Any
    body: Any
    schedule: Any
    location: Any
    options: Any
    anchor: Any
    scheduled: Any
    due: Any
    attempts: Any
    error: Any
    successes: Any
    skipped: Any
    standing: Any
    disabled: Any
    token: Any
    override: Any
    version: Any
    extras: Any


class InstanceRow(NamedTuple):
    """A row of the table of instances."""

    id: Any
    seen: Any
    since: Any
    about: Any


class WholeRow(NamedTuple):
    """A job's row, and its row of details, as one statement has read them."""

    job: JobRow
    details: DetailsRow

    @classmethod
    def read(cls, *columns: Any) -> WholeRow:
        """Of the columns, those of details behind the job's."""
        job = JobRow(*columns[: len(JobRow._fields)])
        return cls(job, DetailsRow(job.id, job.version, job.extras, *columns[len(job) :]))


class PageRow(NamedTuple):
    """A row of the list of jobs."""

    path_is_blob: Any
    body_is_blob: Any
    due_is_blob: Any
    job: JobRow

    @classmethod
    def read(cls, path_is_blob: Any, body_is_blob: Any, due_is_blob: Any, *job: Any) -> PageRow:
        """Of the columns, the job's behind the other three."""
        return cls(path_is_blob, body_is_blob, due_is_blob, JobRow(*job))


class RunRow(NamedTuple):
    """The columns of a claimed row."""

    id: int
    path: Any
    body: Any
    schedule: Any
    location: Any
    options: Any
    anchor: Any
    scheduled: Any
    run: Any
    started: Any
    attempts: Any
    successes: Any
    skipped: Any
    standing: Any
    override: Any
    disabled: Any
    version: Any
    extras: Any
    cause: Any


class Marks(NamedTuple):
    """The columns that tell what wrote to a row last, a record or a claim."""

    id: int
    token: Any
    run: Any
    attempts: Any
    error: Any
    standing: Any
