"""
Several instances on one machine, in processes of their own, below one supervisor.

The *supervisor* is the process that the ``dalga`` command or twistd is. It opens the sockets, makes
the *workers* by fork(2), writes their lines to the log, and makes a new worker for each that dies.
The supervisor runs no job, and has no connection to the database. A worker is an instance like any
other: it has a name, a store and a scheduler of its own. All workers listen on the same sockets. A
connection goes to the worker that accepts it first.

    Supervisor    in the supervisor's process (`dalga.service.make_supervisor` makes it)
    work          a worker's process, from its beginning to its end

At a stop the kernel resets the connections that nobody has accepted. So one worker, the *keeper*,
accepts connections until no other worker does. The keeper alone shuts the sockets down. The
messages of a stop::

    supervisor -> the others   STOP       they accept what waits, and close their sockets
    the others -> supervisor   CLOSED
    supervisor -> the keeper   KEEP       at once: the keeper claims no more
                               CLOSE      when all others have closed their sockets
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import globalLogPublisher

from dalga.config.sections import MOST_WORKERS
from dalga.daemon import Daemon
from dalga.destination import to_function
from dalga.errors import StartupError
from dalga.forking import Channel, Child, Parent, fork
from dalga.log import LineObserver, logger, say_past_the_log
from dalga.signals import take_signals

log = logger(__name__)

#: The CPU time (microseconds) that a container may use in each period, and the period (cgroups(7),
#: version 2).
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")

#: The wait (seconds) before a new worker is made for one that has died, and the longest wait. Each
#: is twice as long as the last.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0

#: A worker that was at work for this long (seconds) was healthy: after its death the wait is
#: `FIRST_WAIT` again.
HEALTHY = 10.0

#: A worker that gets a signal waits this long (seconds) for the supervisor's message that all stop:
#: Ctrl-C, systemd and pkill(1) send a signal to all processes at once.
ALL_OR_ONE = 0.5

#: A worker's channel is closed a moment before the worker can be reaped (waitpid(2)). Time from one
#: try to the next, in seconds.
REAP_PAUSE = 0.005

#: Time limit (seconds) for the keeper's wait for the others: one of them may hang.
KEEPER_WAIT = 2.0

#: Messages from a worker: "I am at work"; "I shall stop alone in `ALL_OR_ONE`, unless all stop";
#: "I accept connections no more".
READY, LEAVING, CLOSED = b"r", b"l", b"c"
#: Messages to a worker: see the module's text.
STOP, KEEP, CLOSE = b"s", b"k", b"x"
#: "Read the configuration again": the supervisor has, and found no mistake.
RELOAD = b"h"


class Place(NamedTuple):
    """Which of the workers a worker is."""

    #: From 1 on.
    number: int
    #: How many workers there are.
    of: int


class Membership:
    """
    What an instance that is a worker shares with the other workers.

    :param place: which worker the instance is.
    :param closed: the instance calls it when the instance accepts connections no more.
    """

    def __init__(self, place: Place, closed: Callable[[], object]) -> None:
        self.place = place
        self.closed = closed
        #: The keeper gets it before its stop: fires when no other worker accepts connections. None
        #: in all other workers: they leave the listening sockets as they are.
        self.others_closed: Deferred[None] | None = None

    def others_have_closed(self) -> None:
        """No other worker accepts connections, or nobody can tell any more."""
        if self.others_closed is not None and not self.others_closed.called:
            self.others_closed.callback(None)


class Worker(Protocol):
    """The service of a worker."""

    def startService(self) -> None: ...

    def stopService(self) -> Deferred[None]: ...

    def reload(self) -> None: ...


#: Makes a worker's service in the worker's process, with the reactor of that process. May raise
#: `StartupError`.
MakeWorker = Callable[[Any, Membership], Worker]


def cores(limit: Path = CPU_LIMIT) -> int:
    """
    How many cores this process may use: those of its CPU affinity (sched_setaffinity(2)), and no
    more than its container's limit of CPU time comes to, rounded up; at most `MOST_WORKERS`.

    :param limit: the file with that limit.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such limit: "max 100000", or no file
        microseconds, period = map(int, limit.read_text().split())
        allowed = min(allowed, -(-microseconds // period))
    return max(1, min(allowed, MOST_WORKERS))


def wait(deaths: int) -> float:
    """
    How long (seconds) to wait before a new worker is made.

    :param deaths: how many workers have died here in a row, none of them `HEALTHY`.
    """
    return min(FIRST_WAIT * 2.0 ** min(deaths - 1, 16), LONGEST_WAIT)


def end_in_words(status: int) -> str:
    """
    How a process has ended.

    :param status: see `Child.status`.
    """
    if status >= 0:
        return f"has ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-status}"


class _Seat:
    """What the supervisor knows of a place, and of the worker that has it at present."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.child: Child | None = None
        #: When the worker was at work, in the reactor's seconds; None before.
        self.ready_at: float | None = None
        #: Whether the worker accepts connections, as far as is known.
        self.accepts = False
        #: Whether the worker is about to stop alone: see `LEAVING`.
        self.leaving = False
        #: See `wait`.
        self.deaths = 0
        #: Makes the next worker; None while there is one.
        self.timer: IDelayedCall | None = None


class Supervisor(Daemon):
    """
    Makes the workers, replaces each that dies, and stops all of them in order.

    :param places: one for each worker.
    :param make: see `MakeWorker`.
    :param log_start: writes the log's first lines. Called when the first worker is at work.
    :param grace: gives how long (seconds) a worker may take to stop. Then the supervisor kills it.
    :param reread: reads the configuration again, for the workers that are made from then on, and
        says in the log what it came to. Tells whether there was no mistake.
    :param close: closes the listening sockets. Called when all workers have ended.
    """

    def __init__(
        self,
        reactor: Any,
        places: Sequence[Place],
        make: MakeWorker,
        log_start: Callable[[], None],
        grace: Callable[[], float],
        reread: Callable[[], bool],
        close: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._seats = [_Seat(place) for place in places]
        self._make = make
        self._log_start = log_start
        self._grace = grace
        self._reread = reread
        self._close = close
        self._has_logged_start = False
        #: Fires when all workers have ended; None before a stop.
        self._over: Deferred[None] | None = None
        #: The worker that accepts connections to the last.
        self._keeper: Child | None = None

    def startService(self) -> None:
        """Make the workers, once the reactor runs: by then signals are taken."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # so it was started: nobody would
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # learn then how a worker has ended
        for seat in self._seats:
            if self._over is None:
                self._make_worker(seat)

    def stopService(self) -> Deferred[None]:
        """
        Have all workers stop in order, each within the grace. Fires when all have ended.
        """
        Service.stopService(self)
        self._over = Deferred()
        keeper = self._choose_keeper()
        for seat in self._seats:
            if seat.timer is not None:
                seat.timer.cancel()
                seat.timer = None
            if seat.child is None:
                continue
            if seat is keeper:
                self._keeper = seat.child
                seat.child.channel.send(KEEP)
            else:
                seat.child.channel.send(STOP)
                if seat.ready_at is None:  # its reactor may not run for long, and it has no run
                    seat.child.signal(signal.SIGTERM)
        self._check_keeper()
        self._reactor.callLater(KEEPER_WAIT, self._close_keeper)
        if not self._children():
            self._end()
            return succeed(None)
        grace = self._grace()
        killing = self._reactor.callLater(grace, self._kill, grace)
        self._over.addCallback(lambda _: killing.active() and killing.cancel())
        return self._over.addCallback(lambda _: self._end())

    def reload(self) -> None:
        """
        Read the configuration again, and have all workers do so. The supervisor reads first: what
        is a mistake there, no worker reads. It has no POST that would be late meanwhile (P7).
        """
        if self._over is None and self._reread():
            for child in self._children():
                child.channel.send(RELOAD)

    def abandon(self) -> None:
        """See `Daemon.abandon`."""
        for child in self._children():
            child.signal(signal.SIGKILL)

    def _choose_keeper(self) -> _Seat | None:
        """
        The first worker that is at work; better one that is not about to stop alone: that worker
        may have closed its sockets when the message comes.
        """
        fit = [
            seat
            for seat in self._seats
            if seat.ready_at is not None
            and seat.accepts
            and seat.child is not None
            and seat.child.status() is None  # it may have died a moment ago
        ]
        return min(fit, key=lambda seat: seat.leaving, default=None)

    def _check_keeper(self) -> None:
        """Have the keeper close its sockets if no other worker accepts connections."""
        others = (seat for seat in self._seats if seat.child is not self._keeper)
        if not any(seat.accepts for seat in others):
            self._close_keeper()

    def _close_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.channel.send(CLOSE)

    def _end(self) -> None:
        self._close()
        log.info("stopped")

    def _kill(self, grace: float) -> None:
        for seat in self._seats:
            if seat.child is not None:
                log.warn(
                    "worker {number} has not stopped within {grace:g} s, and is killed: its runs "
                    "are left to their leases",
                    number=seat.place.number,
                    grace=grace,
                )
        self.abandon()

    def _children(self) -> list[Child]:
        return [seat.child for seat in self._seats if seat.child is not None]

    def _make_worker(self, seat: _Seat) -> None:
        """Make a worker, in the place of one that has ended if there was one."""
        seat.timer = None
        make, observer = self._make, self.observer

        def run(reactor: Any, parent: Parent) -> int:
            return work(reactor, parent, seat.place, make, observer)

        try:
            child = fork(self._reactor, self._children(), run)
        except OSError as error:
            self._make_later(seat, f"could not be made ({error.strerror})")
            return
        seat.child, seat.ready_at, seat.accepts, seat.leaving = child, None, True, False
        child.channel.start_reading(self._reactor, partial(self._received, seat, child))
        if observer is not None:
            child.log_pipe.start_reading(self._reactor, observer.pass_on)

    def _received(self, seat: _Seat, child: Child, message: bytes) -> None:
        if not message:
            seat.accepts = False
            self._reap(seat, child)
        elif message == LEAVING:
            seat.leaving = True
        elif message == READY:
            seat.ready_at = self._reactor.seconds()
            if not self._has_logged_start:
                self._has_logged_start = True
                self._log_start()
        elif message == CLOSED:
            seat.accepts = False
            self._check_keeper()

    def _reap(self, seat: _Seat, child: Child) -> None:
        """A worker's channel is closed: the process has ended, or is about to."""
        status = child.status()
        if status is None:
            self._reactor.callLater(REAP_PAUSE, self._reap, seat, child)
            return
        child.log_pipe.finish()
        child.channel.close()
        seat.child, seat.accepts = None, False
        at = seat.ready_at
        if at is not None and self._reactor.seconds() - at >= HEALTHY:
            seat.deaths = 0
        how = f"(process {child.pid}) {end_in_words(status)}"
        if self._over is None:
            self._make_later(seat, how)
            return
        if status != 0 and at is not None:
            log.warn("worker {number} {how}", number=seat.place.number, how=how)
        if self._children():
            self._check_keeper()
        else:
            self._over.callback(None)

    def _make_later(self, seat: _Seat, how: str) -> None:
        """
        Make a new worker later.

        :param how: how the last worker has ended: what the log says behind its number.
        """
        seat.deaths += 1
        seconds = wait(seat.deaths)
        log.warn(
            "worker {number} {how}: a new worker starts in {seconds:g} s",
            number=seat.place.number,
            how=how,
            seconds=seconds,
        )
        seat.timer = self._reactor.callLater(seconds, self._make_worker, seat)


def stop_alone(reactor: Any, channel: Channel, stop: Callable[[], None]) -> None:
    """A worker got a signal: it stops, unless the supervisor says before that all stop."""
    channel.send(LEAVING)
    reactor.callLater(ALL_OR_ONE, stop)


def work(
    reactor: Any,
    parent: Parent,
    place: Place,
    make: MakeWorker,
    inherited: LineObserver | None,
) -> int:
    """
    Be a worker. Returns when the worker has stopped.

    :param inherited: the supervisor's observer, which the fork has copied. The worker replaces it.
        None where events go to an observer of twistd's, which the worker keeps.
    :return: the exit status.
    """
    observer = None
    if inherited is not None:
        globalLogPublisher.removeObserver(inherited)
        form = inherited.form.of_worker(place.number)
        observer = to_function(parent.write, reactor, form)
        globalLogPublisher.addObserver(observer)
    try:
        membership = Membership(place, lambda: parent.channel.send(CLOSED))
        service = make(reactor, membership)
    except StartupError as error:
        log.error("{error}", error=error)
        return 1

    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            with suppress(ReactorNotRunning):  # a signal came before signals were taken
                reactor.stop()

    def received(message: bytes) -> None:
        if message == RELOAD:
            service.reload()
            return
        if message == KEEP:
            membership.others_closed = Deferred()
        elif message in (CLOSE, b""):
            membership.others_have_closed()
        if not message and not stopping:
            say_past_the_log(f"the supervisor is gone: worker {place.number} stops")
        stop()

    def begin() -> None:
        parent.channel.start_reading(reactor, received)
        parent.channel.send(READY)

    leave = observer.leave if observer is not None else lambda end: end()
    alone = partial(stop_alone, reactor, parent.channel, stop)
    reactor.callWhenRunning(take_signals, reactor, lambda stop: None, leave, alone)
    reactor.callWhenRunning(begin)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    if observer is not None:
        observer.flush()
    return 0
