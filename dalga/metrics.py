"""
What an instance counts, as plain numbers, and the table of what it shows of them. Pure.

`FAMILIES` is the table: a family has a name, a type and labels, as Prometheus knows them. The parts
of the daemon add to a `Metrics` as things happen, which costs no more than an addition. What can be
asked for at any time, such as how many slots are in use, is a *gauge*: a function that is called
when somebody looks. An example::

    metrics.claimed("taken", 40)                           a claim took 40 rows
    metrics.gauge("dalga_slots", lambda: 100)
    metrics.numbers()["dalga_claims_total"]                {("taken",): 1}
    metrics.numbers()["dalga_slots"]                       {(): 100}

What always holds: no number is read from a table when somebody looks, a counter never falls while
the process lives, and no label has more values than this file says (P10).

`dalga.exposition` makes of the numbers what Prometheus reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from dalga.model.histogram import DURATION_BOUNDS, LATENESS_BOUNDS

#: The label of all paths beyond the first so many, and of all methods of HTTP beyond those known.
OTHER = "other"

#: How many paths have a label of their own, by default.
PATHS = 100


class Kind(StrEnum):
    """What a family is, in Prometheus's words."""

    COUNTER = "counter"
    #: Always 1: what there is to be known is in the labels.
    INFO = "info"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


#: The family of the ends of endpoints' certificates.
CERTIFICATES = "dalga_endpoint_certificate_expiry_timestamp_seconds"


class Family(NamedTuple):
    """Numbers of one name."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    #: A sentence, shown with the numbers.
    help: str
    #: Of a histogram: the upper bounds of its buckets.
    bounds: tuple[float, ...] = ()


class Counts(NamedTuple):
    """A histogram's number: how many values are in each bucket, and what all of them add up to."""

    #: One more than there are bounds: the last bucket is of what lies above all bounds.
    buckets: list[int]
    sum: float


#: A value of a family, by the values of the family's labels.
Values = Mapping[tuple[str, ...], float | Counts]
#: All values, by the name of their family. A family without a value may be missing.
Numbers = Mapping[str, Values]

#: Bounds of the numbers of attempts, of rows, and (seconds) of transactions, of requests, and of
#: how long the reactor was busy with something else.
ATTEMPT_BOUNDS = (1, 2, 3, 5, 10, 20, 50)
ROW_BOUNDS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
TRANSACTION_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
REQUEST_BOUNDS = TRANSACTION_BOUNDS
TICK_BOUNDS = TRANSACTION_BOUNDS

#: Results of transactions that do not tell whether the database answers.
_UNSURE = ("again", "abandoned", "failed")

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

#: All families, in the order in which they are shown.
FAMILIES: tuple[Family, ...] = (
    Family(
        "dalga_build_info",
        Kind.INFO,
        ("version", "python", "twisted", "instance_id"),
        "What runs: always 1.",
    ),
    # Runs and attempts
    Family(
        "dalga_runs_total",
        _C,
        ("endpoint", "path", "result"),
        "Runs that ended and whose end is recorded.",
    ),
    Family(
        "dalga_attempts_total",
        _C,
        ("endpoint", "code_class", "error_kind"),
        "Attempts that ended: by the class of the answer's status, empty without an answer; and "
        "by the kind of error, empty for an attempt that did not fail.",
    ),
    Family(
        "dalga_lateness_seconds",
        _H,
        ("endpoint",),
        "From a run's time to the start of its first attempt.",
        LATENESS_BOUNDS,
    ),
    Family(
        "dalga_attempt_duration_seconds",
        _H,
        ("endpoint",),
        "From the start of an attempt to its end.",
        DURATION_BOUNDS,
    ),
    Family(
        "dalga_run_attempts",
        _H,
        (),
        "How many attempts a run took that ended.",
        ATTEMPT_BOUNDS,
    ),
    Family(
        CERTIFICATES,
        _G,
        ("endpoint",),
        "When the certificate ends that the endpoint showed at the last TLS handshake of this "
        "instance, in seconds since 1970.",
    ),
    # What waits, and what there is room for
    Family("dalga_slots", _G, (), "How many runs this instance may have under way at once."),
    Family("dalga_slots_in_use", _G, (), "How many runs this instance has under way."),
    Family(
        "dalga_agenda_entries",
        _G,
        (),
        "Times on the agenda: when jobs will be due, as far as this instance knows.",
    ),
    Family(
        "dalga_unrecorded_outcomes",
        _G,
        (),
        "Ends of runs that are not written to the database yet.",
    ),
    Family(
        "dalga_lag_seconds",
        _G,
        (),
        "For how long the oldest job has been due that, as far as this instance knows, no instance "
        "has claimed.",
    ),
    Family(
        "dalga_due_jobs",
        _G,
        (),
        "Jobs that were due and unclaimed at this instance's last scan; it lists at most 1,000.",
    ),
    Family(
        "dalga_jobs",
        _G,
        ("state",),
        "Jobs in the table, by what the last count in the background found.",
    ),
    Family("dalga_jobs_age_seconds", _G, (), "How long ago that count began."),
    Family(
        "dalga_instances",
        _G,
        (),
        "Instances on the table with a heartbeat of late, as of this instance's last heartbeat.",
    ),
    # Claims and leases
    Family(
        "dalga_claims_total",
        _C,
        ("result",),
        "Claims: taken (they took rows), empty, or failed.",
    ),
    Family("dalga_claim_size", _H, (), "How many rows a claim took.", ROW_BOUNDS),
    Family(
        "dalga_leases_lost_total",
        _C,
        (),
        "Ends that were not recorded, as their lease was over and the run taken by another.",
    ),
    Family(
        "dalga_takeovers_total",
        _C,
        (),
        "Runs claimed after an earlier claim's lease had ended without a record.",
    ),
    # The database
    Family(
        "dalga_db_up",
        _G,
        (),
        "1 if the last transaction that ended found the database, else 0.",
    ),
    Family(
        "dalga_db_transactions_total",
        _C,
        ("operation", "result"),
        "Transactions: ok; refused, by what was found; again, to be run once more after a conflict "
        "or a lost connection; busy, as a lock was not released; abandoned, as nobody waits any "
        "more; unavailable; or failed, by a fault of Dalga.",
    ),
    Family(
        "dalga_db_transaction_duration_seconds",
        _H,
        ("operation",),
        "From when a transaction had a connection until it had ended.",
        TRANSACTION_BOUNDS,
    ),
    Family(
        "dalga_clock_offset_seconds",
        _G,
        (),
        "The database's clock minus this machine's.",
    ),
    # The HTTP interface
    Family(
        "dalga_http_requests_total",
        _C,
        ("route", "method", "code"),
        "Requests that were answered. The route is none where no route matched.",
    ),
    Family(
        "dalga_http_request_duration_seconds",
        _H,
        ("route", "method"),
        "From when a request was there to the end of its answer.",
        REQUEST_BOUNDS,
    ),
    # History and alerts
    Family(
        "dalga_history_pruned_total", _C, (), "Records of runs that were removed by age or number."
    ),
    Family(
        "dalga_alerts_total",
        _C,
        ("event", "result"),
        "Alerts: sent, failed (to be tried again), or given_up. The event heartbeat is a POST to"
        " heartbeatUrl.",
    ),
    Family("dalga_alerts_pending", _G, (), "Alerts that are not sent yet."),
    # The process
    Family(
        "dalga_reactor_tick_seconds",
        _H,
        (),
        "How late a timer was that fires several times a second: for so long the reactor was busy.",
        TICK_BOUNDS,
    ),
)


class Distribution:
    """
    How values are spread over buckets.

    :param bounds: the upper bounds of the buckets, ascending; each bucket has its bound in it.
    """

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def take_in(self, buckets: list[int], total: float) -> None:
        """
        Count the values of another distribution with the same bounds, too.

        :param total: what the values add up to.
        """
        for number, count in enumerate(buckets):
            self.buckets[number] += count
        self.sum += total

    def copy(self) -> Distribution:
        """The same values, to which others may be added."""
        copied = Distribution(self.bounds)
        copied.take_in(self.buckets, self.sum)
        return copied

    @property
    def counts(self) -> Counts:
        """The numbers as they are now: a copy."""
        return Counts(self.buckets.copy(), self.sum)


class PathLabels:
    """
    The values of the label `path`: the first paths that come keep their own, all later ones are
    `OTHER`. Were the busiest to have one, a path's numbers would move from one label to another,
    and a counter would fall.

    :param most: how many paths have a label of their own.
    """

    def __init__(self, most: int = PATHS) -> None:
        #: May be changed. A path that has a label keeps it.
        self.most = most
        self._own: set[str] = set()

    def of(self, path: str) -> str:
        """The label of a path."""
        if path in self._own:
            return path
        if len(self._own) < self.most:
            self._own.add(path)
            return path
        return OTHER


#: Gives a gauge's value, or its values by labels; None where it is not known yet.
Gauge = Callable[[], float | Values | None]


class Metrics:
    """
    The numbers of one instance. See the module's text. To be called in the reactor's thread.

    :param paths: how many paths have a label of their own.
    """

    def __init__(self, paths: int = PATHS) -> None:
        self.path_labels = PathLabels(paths)
        #: May be added to: ends that were lost with their lease; and runs taken over.
        self.leases_lost = 0
        self.takeovers = 0
        self._pruned = 0
        self._claims: dict[tuple[str, ...], float] = {}
        self._claim_size = Distribution(ROW_BOUNDS)
        self._transactions: dict[tuple[str, ...], float] = {}
        self._transaction_seconds: dict[str, Distribution] = {}
        self._requests: dict[tuple[str, ...], float] = {}
        self._request_seconds: dict[tuple[str, ...], Distribution] = {}
        self._alerts: dict[tuple[str, ...], float] = {}
        self._ticks = Distribution(TICK_BOUNDS)
        #: Whether the last transaction that ended found the database; None before the first.
        self.database_is_up: bool | None = None
        self._gauges: dict[str, Gauge] = {"dalga_db_up": lambda: self.database_is_up}
        self._sources: list[Callable[[], Numbers]] = []

    def claimed(self, result: str, rows: int = 0) -> None:
        """
        A claim has ended.

        :param result: ``taken``, ``empty`` or ``failed``.
        :param rows: how many rows it took.
        """
        _count(self._claims, (result,))
        if result != "failed":
            self._claim_size.add(rows)

    def transaction(self, operation: str, result: str, seconds: float) -> None:
        """
        A transaction has ended, or one attempt of a transaction that is run again.

        :param operation: what it did: one of the words that the store has.
        :param result: see the family's text.
        :param seconds: from when it had a connection.
        """
        _count(self._transactions, (operation, result))
        if result not in _UNSURE:
            self.database_is_up = result != "unavailable"
        spread = self._transaction_seconds.get(operation)
        if spread is None:
            spread = self._transaction_seconds[operation] = Distribution(TRANSACTION_BOUNDS)
        spread.add(seconds)

    def request(self, route: str, method: str, code: int, seconds: float | None) -> None:
        """
        A request was answered.

        :param route: as it is written in `dalga.web.api`.
        :param method: one of the methods of HTTP, or `OTHER`.
        :param seconds: None where it was refused before all of it had come.
        """
        _count(self._requests, (route, method, str(code)))
        if seconds is not None:
            spread = self._request_seconds.get((route, method))
            if spread is None:
                spread = self._request_seconds[route, method] = Distribution(REQUEST_BOUNDS)
            spread.add(seconds)

    def alert(self, event: str, result: str) -> None:
        """
        An alert was POSTed.

        :param event: such as ``job.failing``.
        :param result: ``sent``, ``failed`` or ``given_up``.
        """
        _count(self._alerts, (event, result))

    def pruned(self, rows: int) -> None:
        """Records of runs were removed."""
        self._pruned += rows

    def reactor_tick(self, seconds: float) -> None:
        """A timer was late by this much."""
        self._ticks.add(seconds)

    def gauge(self, name: str, value: Gauge) -> None:
        """
        Have a function called for the value of a gauge, whenever somebody looks.

        :param name: of a family of `FAMILIES`.
        """
        if name not in _GAUGES:
            raise ValueError(f"{name} is no gauge of the table of families")
        self._gauges[name] = value

    def source(self, numbers: Callable[[], Numbers]) -> None:
        """Have a function called for the numbers of several families, whenever somebody looks."""
        self._sources.append(numbers)

    def numbers(self) -> Numbers:
        """All numbers as they are now: nothing in them changes any more."""
        found: dict[str, Values] = {
            "dalga_claims_total": self._claims.copy(),
            "dalga_claim_size": {(): self._claim_size.counts},
            "dalga_leases_lost_total": {(): self.leases_lost},
            "dalga_takeovers_total": {(): self.takeovers},
            "dalga_db_transactions_total": self._transactions.copy(),
            "dalga_db_transaction_duration_seconds": {
                (operation,): spread.counts
                for operation, spread in self._transaction_seconds.items()
            },
            "dalga_http_requests_total": self._requests.copy(),
            "dalga_http_request_duration_seconds": {
                labels: spread.counts for labels, spread in self._request_seconds.items()
            },
            "dalga_history_pruned_total": {(): self._pruned},
            "dalga_alerts_total": self._alerts.copy(),
            "dalga_reactor_tick_seconds": {(): self._ticks.counts},
        }
        for source in self._sources:
            found.update(source())
        for name, gauge in self._gauges.items():
            value = gauge()
            if value is not None:
                found[name] = {(): value} if isinstance(value, int | float) else value
        return found


_GAUGES = frozenset(family.name for family in FAMILIES if family.kind in (Kind.GAUGE, Kind.INFO))


def _count(counter: dict[tuple[str, ...], float], labels: tuple[str, ...]) -> None:
    counter[labels] = counter.get(labels, 0) + 1
