"""
What this instance counts of its runs: sums of each minute for the statistics, and numbers since the
process began for the metrics. Pure.

Both come from one look at each end that the recorder has written::

    Scheduler._recorded ──▶ Sums.ended ──▶ a cell of the open minute, by endpoint, path and result
                                             │ each 10 s               │ when the minute is over
                                             ▼                         ▼
                                   Sums.unsaved ──▶ Store      added to the numbers ──▶ Sums.numbers

A run counts in the minute in which its record was written, by the database's clock. It is counted
once, by the instance that has written the record: where the answer to a COMMIT was lost, when the
store finds the run recorded already. A run that a user ends while it waits for its next attempt
comes by another way (`Sums.closed`), as it has no end here.

What always holds: what is to be written of a minute is the whole of its sums, so the same may be
written again after a failure, and nothing counts twice. A minute has at most `PATHS` paths, and at
most `UNSAVED` minutes wait to be written (P10).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable
from datetime import datetime
from heapq import nlargest

from dalga.metrics import ATTEMPT_BOUNDS, OTHER, Counts, Distribution, Numbers, PathLabels
from dalga.model.answers import Meaning
from dalga.model.histogram import DURATION_BOUNDS, LATENESS_BOUNDS, Histogram
from dalga.model.record import EndedRun, Result
from dalga.model.run import End
from dalga.model.statistics import BUSIEST, MINUTE, MinuteSums, Scope, Sum, SumKey, floor

#: How many paths of a minute have a cell of their own. The runs of all others have one together.
PATHS = 1000

#: How many minutes wait to be written, at most. Then the oldest is dropped: nobody has been able to
#: write sums for so long, though records of runs could be written.
UNSAVED = 60

_SUCCEED = Meaning.SUCCEED

#: The path of runs whose path has no cell, or no sum, of its own. No job has it.
_REST = ""


class _Cell:
    """The runs of a minute with one endpoint, path and result."""

    __slots__ = (
        *("duration", "late", "lateness", "retried", "retries", "took", "unposted", "unusual"),
    )

    def __init__(self) -> None:
        #: Counts of the buckets of `LATENESS_BOUNDS`, and the sum in seconds.
        self.lateness = [0] * (len(LATENESS_BOUNDS) + 1)
        self.late = 0.0
        #: As `lateness`, of `DURATION_BOUNDS`: the durations of the last attempts.
        self.duration = [0] * (len(DURATION_BOUNDS) + 1)
        self.took = 0.0
        #: How many runs were ended by another attempt than their first one.
        self.retried = 0
        #: How many attempts the runs took, beside those that have ended them.
        self.retries = 0
        #: How many runs were ended by no attempt.
        self.unposted = 0
        #: How many runs were ended by another answer than a 200 that is a success.
        self.unusual = 0

    @property
    def runs(self) -> int:
        return sum(self.duration) + self.unposted


def _sum(cells: list[_Cell]) -> Sum:
    """The sum of the runs in some cells, at least one."""
    duration = _added(cell.duration for cell in cells)
    posted = sum(duration)
    return Sum(
        posted + sum(cell.unposted for cell in cells),
        posted + sum(cell.retries for cell in cells),
        Histogram(LATENESS_BOUNDS, _added(cell.lateness for cell in cells)),
        Histogram(DURATION_BOUNDS, duration),
    )


def _added(counts: Iterable[list[int]]) -> list[int]:
    """Lists of counts, added up."""
    return list(map(sum, zip(*counts, strict=True)))


class _Minute:
    """The cells of a minute, and what is written of them."""

    def __init__(self, at: datetime, instance: str) -> None:
        self.at = at
        self.instance = instance
        #: By endpoint, path and result.
        self.cells: dict[tuple[str, str, Result], _Cell] = {}
        self._paths: set[tuple[str, str]] = set()
        #: How many runs each row has that is written for certain.
        self._written: dict[SumKey, int] = {}
        #: The rows that may be there: one whose COMMIT failed may have been written.
        self._sent: set[SumKey] = set()
        #: How many batches of ends were counted; how many at the last `unsaved`, and how many of
        #: them are written for certain.
        self.batches = 0
        self._given = 0
        self._saved = 0

    def cell(self, endpoint: str, path: str, result: Result) -> _Cell:
        """A cell, which is made if it is not there."""
        if (endpoint, path) not in self._paths:
            if len(self._paths) < PATHS:
                self._paths.add((endpoint, path))
            else:
                path = _REST
        whose = endpoint, path, result
        cell = self.cells.get(whose)
        if cell is None:
            cell = self.cells[whose] = _Cell()
        return cell

    @property
    def is_saved(self) -> bool:
        """Whether all is written."""
        return self._saved == self.batches

    def unsaved(self) -> MinuteSums:
        """What is to be written."""
        self._given = self.batches
        sums = self._sums()
        rows = [
            (key, counted)
            for key, counted in sums.items()
            # Which paths the rest is of may change, and their runs be as many.
            if counted.runs != self._written.get(key) or self._is_rest(key)
        ]
        gone = sorted(self._sent - sums.keys())
        self._sent |= sums.keys()
        return MinuteSums(self.at, self.instance, rows, gone)

    def saved(self, written: MinuteSums) -> None:
        """The database has what `unsaved` gave last."""
        self._saved = self._given
        self._written.update((key, counted.runs) for key, counted in written.rows)
        for key in written.gone:
            self._sent.discard(key)
            self._written.pop(key, None)

    def _sums(self) -> dict[SumKey, Sum]:
        """All sums of the minute. Takes some milliseconds, if there are many paths."""
        runs: dict[tuple[str, str], int] = {}
        for (endpoint, path, _), cell in self.cells.items():
            if path != _REST:
                runs[endpoint, path] = runs.get((endpoint, path), 0) + cell.runs
        busiest = set(nlargest(BUSIEST, runs, key=lambda path: (runs[path], path)))
        cells: defaultdict[tuple[str, str, Result], list[_Cell]] = defaultdict(list)
        for (endpoint, path, result), cell in self.cells.items():
            own = path if (endpoint, path) in busiest else _REST
            cells[endpoint, own, result].append(cell)
        sums: dict[SumKey, Sum] = {}
        for whose, some in cells.items():
            key = SumKey(Scope.PATH, MINUTE, self.at, *whose)
            counted = sums[key] = _sum(some)
            of_endpoint = key._replace(scope=Scope.ENDPOINT, path=_REST)
            sums.setdefault(of_endpoint, Sum()).add(counted)
        return sums

    def _is_rest(self, key: SumKey) -> bool:
        return key.scope is Scope.PATH and key.path == _REST and len(self._paths) > BUSIEST


class Sums:
    """
    See the module's text. To be called in the reactor's thread.

    :param instance: what this instance calls itself.
    :param labels: which paths the metrics tell apart.
    """

    def __init__(self, instance: str, labels: PathLabels) -> None:
        self._instance = instance
        self._labels = labels
        self._open: _Minute | None = None
        #: Minutes that are over, and not written yet.
        self._closed: deque[MinuteSums] = deque()
        #: How often the clock was set back by more than a minute. The minutes that come again are
        #: another instance's, as it were: this one has written sums of them.
        self._returns = 0
        #: How many minutes were dropped.
        self.dropped = 0
        self._totals = _Totals()

    def ended(self, ends: Iterable[tuple[End, Result | None]], now: datetime) -> None:
        """
        Count ends that the recorder has written.

        Each run comes here, so each microsecond counts. Rare cases are left to methods.

        :param ends: each with the result of its run; None where the run goes on, or is another
            instance's.
        :param now: the database's time (aware, UTC).
        """
        minute = self._open
        if minute is None or not minute.at <= now < minute.at + MINUTE:
            minute = self._minute(now)
        minute.batches += 1
        cells, totals = minute.cells, self._totals
        for end, result in ends:
            run, outcome = end.run, end.outcome
            if result is None:
                totals.went_on(end)
                continue
            cell = cells.get((run.options.endpoint, run.key.path, result))
            if cell is None:
                cell = minute.cell(run.options.endpoint, run.key.path, result)
            if outcome is None:
                self._without_end(cell, run.attempt - 1)
                continue
            seconds = outcome.elapsed
            cell.duration[bisect_left(DURATION_BOUNDS, seconds)] += 1
            cell.took += seconds
            if run.attempt == 1:
                ended = end.ended or now
                late = (ended - run.late_since).total_seconds() - seconds
            else:
                late = (run.started - run.late_since).total_seconds()
                cell.retried += 1
                cell.retries += run.attempt - 1
                totals.tried_again(run.attempt)
            cell.lateness[bisect_left(LATENESS_BOUNDS, late)] += 1
            if late > 0.0:
                cell.late += late
            if outcome.status != 200 or end.meaning is not _SUCCEED:
                cell.unusual += 1
                totals.unusual(end, outcome.status)

    def closed(self, runs: Iterable[EndedRun], now: datetime) -> None:
        """Count runs that have no `End`. As `ended`."""
        minute = self._minute(now)
        minute.batches += 1
        for path, endpoint, result, attempts in runs:
            self._without_end(minute.cell(endpoint, path, result), attempts)

    def _without_end(self, cell: _Cell, attempts: int) -> None:
        """Count a run that was ended by no attempt. Its attempts were counted as they ended."""
        cell.unposted += 1
        if attempts:
            cell.retries += attempts
            self._totals.tried_again(attempts)

    @property
    def is_saved(self) -> bool:
        """Whether all that was counted is written."""
        return not self._closed and (self._open is None or self._open.is_saved)

    def unsaved(self) -> list[MinuteSums]:
        """What is to be written, the oldest minute first; each is given again until `saved`."""
        found = list(self._closed)
        if self._open is not None and not self._open.is_saved:
            found.append(self._open.unsaved())
        return found

    def saved(self, written: MinuteSums) -> None:
        """The database has it."""
        if self._closed and self._closed[0] is written:
            self._closed.popleft()
        elif self._open is not None and self._open.at == written.at:
            self._open.saved(written)

    def numbers(self) -> Numbers:
        """The numbers of the families of metrics that are about runs and attempts."""
        totals = self._totals.copy()
        if self._open is not None:
            totals.take_in(self._open, self._labels)
        return totals.numbers()

    def _minute(self, now: datetime) -> _Minute:
        """The minute that is open at a time."""
        at = floor(now, MINUTE)
        last = self._open
        if last is not None:
            if last.at - MINUTE <= at <= last.at:
                return last  # the estimate of the time may go back a little
            self._totals.take_in(last, self._labels)
            if not last.is_saved:
                self._closed.append(last.unsaved())
            if len(self._closed) > UNSAVED:
                self._closed.popleft()
                self.dropped += 1
            if at < last.at:
                self._returns += 1
        name = f"{self._instance}~{self._returns}" if self._returns else self._instance
        self._open = _Minute(at, name)
        return self._open


class _Totals:
    """Numbers since the process began."""

    def __init__(self) -> None:
        #: By endpoint, label of the path, and result.
        self._runs: dict[tuple[str, ...], int] = {}
        self._lateness: dict[str, Distribution] = {}
        self._duration: dict[str, Distribution] = {}
        #: By endpoint, class of the status, and kind of error.
        self._attempts: dict[tuple[str, ...], int] = {}
        #: How many attempts runs took.
        self._per_run = Distribution(ATTEMPT_BOUNDS)

    def copy(self) -> _Totals:
        """The same numbers, which change no more."""
        copied = _Totals()
        copied._runs, copied._attempts = self._runs.copy(), self._attempts.copy()
        copied._lateness = {name: each.copy() for name, each in self._lateness.items()}
        copied._duration = {name: each.copy() for name, each in self._duration.items()}
        copied._per_run = self._per_run.copy()
        return copied

    def went_on(self, end: End) -> None:
        """Count an attempt that ended no run, or a run that is another instance's by now."""
        outcome = end.outcome
        if outcome is not None:
            self.unusual(end, outcome.status)
            _of(self._duration, end.run.options.endpoint, DURATION_BOUNDS).add(outcome.elapsed)

    def unusual(self, end: End, status: int | None) -> None:
        """Count what an attempt came to, which `take_in` does not (`_Cell.unusual`)."""
        code_class = "" if status is None else f"{status // 100}xx"
        self._add_attempts(end.run.options.endpoint, code_class, end.error_kind or "", 1)

    def tried_again(self, attempts: int) -> None:
        """Count the attempts of a run, which `take_in` does not (`_Cell.retried`)."""
        self._per_run.add(attempts)

    def take_in(self, minute: _Minute, labels: PathLabels) -> None:
        """Count the runs of a minute. Of a thousand paths that takes a millisecond or two."""
        cells: defaultdict[str, list[_Cell]] = defaultdict(list)
        for (endpoint, path, result), cell in minute.cells.items():
            label = OTHER if path == _REST else labels.of(path)
            key = (endpoint, label, result.value)
            self._runs[key] = self._runs.get(key, 0) + cell.runs
            cells[endpoint].append(cell)
        for endpoint, some in cells.items():
            lateness = _added(cell.lateness for cell in some)
            duration = _added(cell.duration for cell in some)
            late, took = sum(cell.late for cell in some), sum(cell.took for cell in some)
            _of(self._lateness, endpoint, LATENESS_BOUNDS).take_in(lateness, late)
            _of(self._duration, endpoint, DURATION_BOUNDS).take_in(duration, took)
            posted = sum(duration)
            self._add_attempts(endpoint, "2xx", "", posted - sum(cell.unusual for cell in some))
            self._per_run.add(1, posted - sum(cell.retried for cell in some))

    def numbers(self) -> Numbers:
        """By the names of families."""
        return {
            "dalga_runs_total": self._runs,
            "dalga_attempts_total": self._attempts,
            "dalga_lateness_seconds": _counts(self._lateness),
            "dalga_attempt_duration_seconds": _counts(self._duration),
            "dalga_run_attempts": {(): self._per_run.counts},
        }

    def _add_attempts(self, endpoint: str, code_class: str, kind: str, number: int) -> None:
        if number:
            key = (endpoint, code_class, str(kind))
            self._attempts[key] = self._attempts.get(key, 0) + number


def _of(spread: dict[str, Distribution], endpoint: str, bounds: tuple[float, ...]) -> Distribution:
    return spread.setdefault(endpoint, Distribution(bounds))


def _counts(spread: dict[str, Distribution]) -> dict[tuple[str, ...], Counts]:
    return {(endpoint,): each.counts for endpoint, each in spread.items()}
