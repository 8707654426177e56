"""
The alerts that wait to be sent. Any instance claims, sends and settles them.
`dalga.store.outbox.Outbox` says what each call does.

A claim of an alert is a lease in the column ``due``, as a claim of a run is. If the instance dies,
another instance sends the alert once the lease ends. Then the alert comes twice, with one id.

The alerts of one subject and target are sent in the order of their ids. A subject is a job, an
endpoint, or the scheduler. An example, of one job::

    10:00:00  job.failing     is claimed, does not arrive, is due again at 10:00:02
    10:00:01  job.recovered   is put off to 10:00:02: job.failing is before it
    10:00:02  job.failing     is claimed, and arrives
    10:00:02  job.recovered   is put off by a second, as job.failing is under way
    10:00:03  job.recovered   is claimed

What always holds: alerts of other subjects and to other targets do not wait for these two, and no
alert waits for longer than a day (`LASTS`). What breaks the order: more than `BEFORE` alerts wait.

An alert whose target no instance has is put off by `PUT_OFF`, again and again, so that claims do
not come upon it each time. After a day it is given up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.alert import AlertState, Event, KeptAlert, Targets, content, summary
from dalga.model.key import RawKey
from dalga.store.alerts import AlertRows, id_at
from dalga.store.alertsql import AlertStatements, DueAlert, NewAlert, Subject, UntakenAlert
from dalga.store.dialect import Cursor, Dialect
from dalga.store.outbox import Forgotten, Parcel, Settled, Taken
from dalga.store.rows import MAX_ERROR, shown_key
from dalga.store.transactions import Conflict, Transactions
from dalga.store.values import octets, text_of, text_or_none, whole

#: How long a claim of an alert holds. A POST of an alert takes 10 s at most. If an instance dies
#: between the POST and the note of what came of it, the next alert of the job waits this long.
LEASE = timedelta(seconds=30)

#: Alerts of one endpoint that are sent to one target in a minute, each by itself, at most.
AT_ONCE = 20
MINUTE = timedelta(minutes=1)

#: No summary stands for these alerts. An endpoint that is down makes its jobs fail, and the crowd
#: of their alerts would hide the alert that says why. An endpoint is down for a minute at least, so
#: there are few of these.
_BY_THEMSELVES = frozenset({Event.SUMMARY, Event.ENDPOINT_DOWN, Event.ENDPOINT_UP})

#: Due alerts that one look reads, at most. A claim has two looks at most, and takes some 8 ms.
LOOKED_AT = 100

#: An alert waits for earlier ones among the first `BEFORE` that wait to be sent, in due order.
BEFORE = 1_000

#: An alert waits this long for an earlier one that is under way, or may be claimed any moment.
SHORTLY = timedelta(seconds=1)

#: An alert that did not arrive is sent again for this long.
LASTS = timedelta(hours=24)

#: An alert whose target this instance has not is put off by `PUT_OFF` once it has been due for
#: `UNTAKEN`: no instance that is alive has the target.
UNTAKEN = timedelta(minutes=10)
PUT_OFF = timedelta(minutes=10)

#: How long alerts are kept.
KEPT = timedelta(days=7)

#: No alert is due before.
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class _Due(NamedTuple):
    """An alert that is due."""

    id: bytes
    event: str
    endpoint: str
    #: None for an alert about no single job.
    job: RawKey | None
    target: str
    #: When it was made. No later than the claim, whatever the row says (P6).
    made: datetime
    #: How many attempts to send it there were.
    attempts: int
    content: str


class _Look:
    """What a claim makes of the alerts that it looks at."""

    def __init__(self, now: datetime, rooms: Mapping[str, int]) -> None:
        self.now = now
        self.rooms = rooms
        self._left = dict(rooms)
        #: Alerts that this claim takes.
        self.taken: list[_Due] = []
        #: The ids of alerts that are put off, by the time until when.
        self.put_off: defaultdict[datetime, list[bytes]] = defaultdict(list)
        #: How many alerts a summary stands for from now on.
        self.folded = 0
        #: Whether there may be more due alerts than were looked at.
        self.has_more = False

    @property
    def changes(self) -> int:
        """How many of the alerts are not due any more."""
        return len(self.taken) + sum(map(len, self.put_off.values())) + self.folded

    def is_filled(self, target: str) -> bool:
        """Whether this claim has filled the room of a target, which had some."""
        return self.rooms[target] > 0 and not self._left[target]

    def take(self, row: _Due) -> None:
        """Take an alert, if its target has room. Otherwise the alert stays due."""
        if self._left[row.target] > 0:
            self._left[row.target] -= 1
            self.taken.append(row)

    @property
    def again(self) -> timedelta | None:
        """When there may be more to take: see `Taken.again`."""
        if self.has_more:
            return timedelta()
        return min((until - self.now for until in self.put_off), default=None)


class AlertTable:
    """
    :param lane: the transactions of the API, before which claims of runs go.
    :param rows: writes summaries.
    :param token: makes the random token of a claim.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: AlertStatements,
        lane: Transactions,
        rows: AlertRows,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._rows = rows
        self._token = token

    @property
    def targets(self) -> Targets:
        """See `Outbox.targets`."""
        return self._rows.targets

    @property
    def written(self) -> int:
        """See `Outbox.written`."""
        return self._rows.written

    # Claims

    def claim(self, rooms: Mapping[str, int]) -> Deferred[Taken]:
        """See `Outbox.claim`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Taken:
            look = _Look(now, rooms)
            # Alerts to targets without room are looked at apart: they may be many, and are not to
            # stand before the others. Summaries stand for a crowd of them in time.
            for names in (
                [name for name, room in rooms.items() if room > 0],
                [name for name, room in rooms.items() if room <= 0],
            ):
                if names:
                    self._look_at(cursor, look, names)
            for until, ids in look.put_off.items():
                self._put_off(cursor, now, ids, until)
            return Taken(self._take(cursor, look), look.again)

        return self._lane.run(work, "alerts")

    def _look_at(self, cursor: Cursor, look: _Look, names: Sequence[str]) -> None:
        """Decide what becomes of the due alerts to some targets."""
        changes = look.changes
        rows = self._due(cursor, look.now, names)
        behind = self._behind(cursor, look.now, rows)
        groups: defaultdict[tuple[str, str], list[_Due]] = defaultdict(list)
        for row in rows:
            groups[row.endpoint, row.target].append(row)
        for (endpoint, target), group in groups.items():
            if look.is_filled(target):
                continue  # the next claim looks at them
            # Alerts that have to wait anyway come last, so that they take the place of no other.
            group.sort(key=lambda row: row.id in behind)
            for row in self._in_turn(cursor, look, endpoint, group):
                until = behind.get(row.id)
                if until is None:
                    look.take(row)
                else:
                    look.put_off[until].append(row.id)
        look.has_more |= len(rows) == LOOKED_AT and look.changes > changes

    def _due(self, cursor: Cursor, now: datetime, names: Sequence[str]) -> list[_Due]:
        """The alerts to some targets that have been due for longest, `LOOKED_AT` at most."""
        targets, at = [self._dialect.key(name) for name in names], self._dialect.instant(now)
        rows = self._sql.due.fetch(cursor, targets, now=at, limit=LOOKED_AT)
        return [self._read(row, now) for row in rows]

    def _read(self, row: DueAlert, now: datetime) -> _Due:
        made = self._instant(row.made)
        return _Due(
            octets(row.id),
            text_of(row.event),
            text_of(row.endpoint),
            None if row.path is None else RawKey(*shown_key(row.path, row.body)),
            text_of(row.target),
            now if made is None else min(made, now),
            whole(row.attempts),
            text_of(row.content),
        )

    def _behind(self, cursor: Cursor, now: datetime, rows: Sequence[_Due]) -> dict[bytes, datetime]:
        """
        Which alerts wait for an earlier one of the same subject and target, and until when: by
        their ids.
        """
        key = self._dialect.key
        jobs = {row.job or RawKey("", "") for row in rows if row.event != Event.SUMMARY}
        if not jobs:
            return {}
        subjects = [Subject(key(path), key(body)) for path, body in sorted(jobs)]
        earlier: defaultdict[tuple[str, ...], dict[bytes, datetime]] = defaultdict(dict)
        # An alert that has waited for a day, by its id, is waited for by none. So a row that a
        # stranger has written holds up its subject for a day at most.
        first = id_at(now - LASTS)
        pending = self._sql.pending_of.fetch(
            cursor, subjects, after=self._dialect.instant(_LONG_AGO), looked_at=BEFORE
        )
        for row in pending:
            id = octets(row.id)
            if id < first:
                continue
            until = now + SHORTLY
            if row.token is None:
                due = self._instant(row.due) or until
                until = min(max(due, until), now + PUT_OFF)
            job = None if row.path is None else RawKey(*shown_key(row.path, row.body))
            subject = _subject(text_of(row.target), text_of(row.endpoint), job)
            earlier[subject][id] = until
        found = {}
        for due_row in rows:
            if due_row.event != Event.SUMMARY:
                of_subject = earlier[_subject(due_row.target, due_row.endpoint, due_row.job)]
                before = min(of_subject, default=due_row.id)
                if before < due_row.id:
                    found[due_row.id] = of_subject[before]
        return found

    def _in_turn(
        self, cursor: Cursor, look: _Look, endpoint: str, group: Sequence[_Due]
    ) -> list[_Due]:
        """
        Which of the due alerts about one endpoint may be sent now: `AT_ONCE` in a minute. A summary
        stands for the others, and is sent at the end of that minute. Alerts that were sent before,
        and did not arrive, are put off until then. `_BY_THEMSELVES` wait for nothing.

        :param group: those to one target.
        """
        now, target = look.now, group[0].target
        (lately,) = self._sql.sent_lately.fetch(
            cursor,
            after=self._dialect.instant(now - MINUTE),
            now=self._dialect.instant(now),
            endpoint=self._dialect.key(endpoint),
            target=self._dialect.key(target),
        )
        room = AT_ONCE - lately.number
        first = self._instant(lately.first) or now
        until = max(first + MINUTE, now + SHORTLY)
        to_send: list[_Due] = []
        beyond: list[_Due] = []
        for row in group:
            if row.event in _BY_THEMSELVES or room > 0:
                to_send.append(row)
                room -= 1
            elif row.attempts:
                look.put_off[until].append(row.id)
            else:
                beyond.append(row)
        if beyond:
            self._fold(cursor, now, endpoint, beyond, until)
            look.folded += len(beyond)
        return to_send

    def _fold(
        self, cursor: Cursor, now: datetime, endpoint: str, rows: Sequence[_Due], until: datetime
    ) -> None:
        """
        Have a summary stand for alerts to one target.

        :param until: when the summary is due, if there is none yet.
        """
        key, instant, target = self._dialect.key, self._dialect.instant, rows[0].target
        about = {"endpoint": key(endpoint), "target": key(target)}
        open_ones = self._sql.open_summary.fetch(
            cursor,
            now=instant(now),
            until=instant(now + MINUTE),
            event=str(Event.SUMMARY),
            **about,
        )
        before = _members(open_ones[0].content) if open_ones else {}
        id = octets(open_ones[0].id) if open_ones else self._rows.new_id(now)
        alert = summary(now, endpoint or None, [(row.event, row.job) for row in rows], before)
        text = content(alert, id.hex(), self._rows.instance)
        if open_ones:
            self._sql.rewrite.execute(cursor, id=id, content=text)
        else:
            made = NewAlert(
                *(id, str(alert.event), key(endpoint), None, None, key(target)),
                *(instant(now), instant(until), text),
            )
            self._sql.add.execute(cursor, [made])
        ids = [row.id for row in rows]
        error = f"{AlertState.SUMMARIZED}: {id.hex()} stands for it"
        if self._sql.fold.execute(cursor, ids, now=instant(now), error=error) != len(ids):
            raise Conflict("an alert was claimed between two statements")

    def _put_off(
        self, cursor: Cursor, now: datetime, ids: Sequence[bytes], until: datetime
    ) -> None:
        at, later = self._dialect.instant(now), self._dialect.instant(until)
        self._sql.postpone.execute(cursor, ids, now=at, until=later)

    def _take(self, cursor: Cursor, look: _Look) -> list[Parcel]:
        """Write the leases of the alerts that are taken."""
        if not look.taken:
            return []
        now, token = look.now, self._token()
        ids = [row.id for row in look.taken]
        lease = {
            "now": self._dialect.instant(now),
            "token": token,
            "lease_ends": self._dialect.instant(now + LEASE),
        }
        if self._sql.take.execute(cursor, ids, **lease) != len(ids):
            raise Conflict("an alert was claimed between two statements")
        return [
            Parcel(row.id, token, row.target, row.content, row.attempts + 1, row.made + LASTS - now)
            for row in look.taken
        ]

    # What comes after a claim

    def settle(self, settled: Sequence[Settled]) -> Deferred[None]:
        """See `Outbox.settle`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            for parcel, again, error in settled:
                due = None if again is None else self._dialect.instant(now + again)
                words = None if error is None else error[:MAX_ERROR]
                # The token is compared: another instance may have claimed the alert since.
                self._sql.settle.execute(
                    cursor, id=parcel.id, token=parcel.token, due=due, error=words
                )

        return self._lane.run(work, "alerts")

    def forget(self, limit: int) -> Deferred[Forgotten]:
        """See `Outbox.forget`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Forgotten:
            at = self._dialect.instant(now)
            given_up = id_at(now - LASTS - timedelta(hours=1))
            # A reload may have left this instance no target: then it judges none.
            names = [self._dialect.key(name) for name in self.targets.names]
            before = self._dialect.instant(now - UNTAKEN)
            rows: list[UntakenAlert] = []
            if names:
                rows = self._sql.untaken.fetch(cursor, names, before=before, limit=limit)
            # An instance that has the target would have given up by now.
            over = [row for row in rows if octets(row.id) < given_up]
            later = [octets(row.id) for row in rows if octets(row.id) >= given_up]
            if over:
                error = "no instance has a target of this name"
                self._sql.give_up.execute(cursor, [row.id for row in over], now=at, error=error)
            if later:
                self._put_off(cursor, now, later, now + PUT_OFF)
            ids = [
                row.id for row in self._sql.old.fetch(cursor, before=id_at(now - KEPT), limit=limit)
            ]
            if ids:
                self._sql.forget.execute(cursor, last=ids[-1])
            return Forgotten(
                len(rows) == limit or len(ids) == limit,
                tuple(sorted({text_of(row.target) for row in rows})),
                len(over),
            )

        return self._lane.run(work, "alerts")

    # For people

    def newest(self, limit: int) -> Deferred[list[KeptAlert]]:
        """See `Outbox.newest`."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[KeptAlert]:
            return [self._kept(row) for row in self._sql.newest.fetch(cursor, limit=limit)]

        return self._lane.run(work, "alerts")

    def _kept(self, row: Any) -> KeptAlert:
        error = text_or_none(row.error)
        if row.due is not None:
            state = AlertState.WAITING
        elif error is None:
            state = AlertState.SENT
        elif error.startswith(AlertState.SUMMARIZED) and not whole(row.attempts):
            state = AlertState.SUMMARIZED
        else:
            state = AlertState.GIVEN_UP
        return KeptAlert(
            _members(row.content),
            text_of(row.target),
            state,
            whole(row.attempts),
            self._instant(row.sent),
            error,
        )

    def _instant(self, value: object) -> datetime | None:
        """A time; None for anything that is none (P6)."""
        with suppress(ValueError):
            return self._dialect.read_instant(value)
        return None


def _subject(target: str, endpoint: str, job: RawKey | None) -> tuple[str, ...]:
    """
    What an alert is about, and where it is sent. The order of alerts is kept for each of these.

    :param job: None for an alert about the endpoint, or about the scheduler, whose endpoint is "".
    """
    return (target, endpoint) if job is None else (target, *job)


def _members(value: object) -> dict[str, Any]:
    """The members of an alert's JSON; none if the value is no JSON (P6)."""
    try:
        found = json.loads(text_of(value))
        json.dumps(found, allow_nan=False)  # NaN is no JSON
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
