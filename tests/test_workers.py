"""``--workers``: a supervisor and its workers, in processes of their own; and the parts of both."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from dalga import workers
from dalga.config.sections import MySQLConfig, SQLiteConfig
from dalga.forking import LOG_PAUSE, LogPipe
from dalga.lines import TextLines
from dalga.log import LineObserver
from dalga.settings import longest_answer
from dalga.workers import (
    ALL_OR_ONE,
    CLOSE,
    CLOSED,
    HEALTHY,
    KEEP,
    KEEPER_WAIT,
    LEAVING,
    READY,
    RELOAD,
    STOP,
    Place,
    Supervisor,
    cores,
    end_in_words,
    stop_alone,
    wait,
)
from tests.daemons import Daemon, DaemonTestCase, Hit
from tests.stores import each_engine, server
from tests.test_privileges import NOBODY, ROOT

#: The beginning of a line of the log: the time, the worker, the module.
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4}( worker \d)? \[[^\]]*\] ")


def alive(pid: int) -> bool:
    """Whether a process is there, and is no zombie (proc(5), the state in stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class WaitTests(SynchronousTestCase):
    def test_longer_each_time(self) -> None:
        for deaths, seconds in [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (10_000, 30)]:
            self.assertEqual(wait(deaths), seconds, deaths)


class EndTests(SynchronousTestCase):
    def test_in_words(self) -> None:
        for status, words in [
            (0, "has ended with status 0"),
            (1, "has ended with status 1"),
            (-9, "was ended by SIGKILL"),
            (-40, "was ended by signal 40"),
        ]:
            self.assertEqual(end_in_words(status), words)


class LongestAnswerTests(SynchronousTestCase):
    """What a worker's stop may wait for, so that no worker is killed that stops in order."""

    def test_of_each_server(self) -> None:
        for host, seconds in [("a", 13.0), ("a, b:3307, [::1]", 39.0)]:
            self.assertEqual(longest_answer(MySQLConfig(host=host)), seconds, host)
        self.assertEqual(longest_answer(SQLiteConfig()), 0.0)


class CoresTests(SynchronousTestCase):
    def test_of_this_process(self) -> None:
        """Those that it may use, not those that the machine has."""
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        nowhere = Path(self.mktemp())
        self.assertEqual(cores(nowhere), len(before))
        os.sched_setaffinity(0, {min(before)})
        self.assertEqual(cores(nowhere), 1)

    def test_of_a_container(self) -> None:
        """No more than its limit of CPU time comes to, whatever the machine has."""
        self.patch(os, "sched_getaffinity", lambda _: range(96))
        limit = Path(self.mktemp())
        for text, expected in [
            ("max 100000\n", 64),
            ("200000 100000\n", 2),
            ("150000 100000\n", 2),
            ("25000 100000\n", 1),
            ("25000 50000\n", 1),
            ("", 64),
        ]:
            limit.write_text(text)
            self.assertEqual(cores(limit), expected, text)


class Readers:
    """As much of a reactor as readers need: tests turn it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.readers: list[Any] = []
        self.addReader = self.readers.append
        self.callLater = self.clock.callLater

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def turn(self) -> None:
        for reader in [*self.readers]:
            reader.doRead()
        self.clock.advance(LOG_PAUSE)


class LogPipeTests(SynchronousTestCase):
    """The pipe from a worker to the log."""

    def setUp(self) -> None:
        reading, self.writing = os.pipe()
        self.reactor = Readers()
        self.taken: list[str] = []
        self.pipe = LogPipe(reading)
        self.pipe.start_reading(self.reactor, self.taken.append)

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)
        self.reactor.turn()

    def test_whole_lines(self) -> None:
        """Whatever pieces the pipe gives, no line is passed on before its end has come."""
        for piece in (b"one\ntw", b"o", b"\n", b"three \xc3", b"\xbc\xff\nfour"):
            self.write(piece)
        self.assertEqual(self.taken, ["one\n", "two\n", "three ü\\xff\n"])

    def test_a_death_in_the_middle_of_a_line(self) -> None:
        """The line is passed on as far as it came."""
        self.write(b"one\ntw")
        os.write(self.writing, b"o\nthr")
        os.close(self.writing)
        self.pipe.finish()
        self.pipe.finish()
        self.assertEqual(self.taken, ["one\n", "two\n", "thr\n"])
        self.assertEqual(self.reactor.readers, [])

    def test_a_pause(self) -> None:
        """After a look, what comes meanwhile is read together."""
        self.write(b"one\n")
        os.write(self.writing, b"two\n")
        self.assertEqual(len(self.reactor.readers), 1)
        self.reactor.readers[0].doRead()
        self.assertEqual(self.reactor.readers, [])
        os.write(self.writing, b"three\n")
        os.write(self.writing, b"four\n")
        self.reactor.clock.advance(LOG_PAUSE)
        self.reactor.turn()
        self.assertEqual(self.taken, ["one\n", "two\n", "three\nfour\n"])


class TagTests(SynchronousTestCase):
    def test_behind_the_time(self) -> None:
        """In lines of Dalga's, and in all others, once each."""
        written: list[str] = []
        form = TextLines().of_worker(3)
        observer = LineObserver(written.append, lambda flush: flush(), form)
        from twisted.logger import LogLevel

        for namespace in ("dalga.x", "other"):
            event = {"log_namespace": namespace, "log_level": LogLevel.info, "log_time": 1.0}
            observer({**event, "log_format": "a [b]\nc", "log_system": "x"})
        observer.pass_on("line\n")
        self.assertRegex(written[0], r"^1970-01-01T\S+ worker 3 \[dalga\.x#info\] a \[b\]\n\tc\n$")
        self.assertRegex(written[1], r"^1970-01-01T\S+ worker 3 \[x\] a \[b\]\n\tc\n$")
        self.assertEqual(written[2:], ["line\n"])


class FakeChild:
    """As much of a child as the supervisor asks of one."""

    pid = 4711

    def __init__(self) -> None:
        self.channel = self.log_pipe = self
        self.ended: int | None = None
        self.messages: list[bytes] = []
        self.signals: list[signal.Signals] = []
        #: What was done to the log pipe and the channel.
        self.done: list[str] = []
        self.send = self.messages.append
        self.signal = self.signals.append

    def start_reading(self, reactor: Any, received: Callable[[bytes], object]) -> None:
        self.received = received

    def status(self) -> int | None:
        return self.ended

    def end(self, status: int) -> None:
        self.ended = status
        self.received(b"")

    def finish(self) -> None:
        """Of the log pipe."""
        self.done.append("finish")

    def close(self) -> None:
        """Of the channel."""
        self.done.append("close")


class SupervisorTests(SynchronousTestCase):
    """Which worker there is, and who is told what; without processes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.callWhenRunning = lambda call: call()  # type: ignore[attr-defined]
        self.children: list[FakeChild] = []
        self.error: OSError | None = None
        self.patch(workers, "fork", self.fork)
        self.listening: list[None] = []
        #: Whether the configuration has no mistake, when it is read again; how often that was.
        self.is_sound = True
        self.rereads = 0
        #: An item for each time that the listening sockets were closed.
        self.closed: list[None] = []
        self.supervisor = Supervisor(
            self.clock,
            [Place(1, 2), Place(2, 2)],
            lambda reactor, membership: None,  # type: ignore[arg-type, return-value]
            lambda: self.listening.append(None),
            lambda: 20.0,
            self.reread,
            lambda: self.closed.append(None),
        )

    def fork(self, reactor: object, siblings: object, run: object) -> FakeChild:
        if self.error is not None:
            raise self.error
        self.children.append(FakeChild())
        return self.children[-1]

    def reread(self) -> bool:
        self.rereads += 1
        return self.is_sound

    def start(self) -> tuple[FakeChild, FakeChild]:
        """Both workers at work."""
        self.supervisor.startService()
        one, two = self.children
        one.received(READY)
        two.received(READY)
        return one, two

    def test_listens(self) -> None:
        """Said once, when the first worker is at work."""
        self.supervisor.startService()
        self.assertEqual(len(self.listening), 0)
        self.children[1].received(READY)
        self.children[0].received(READY)
        self.children[0].end(-9)
        self.clock.advance(0.5)
        self.children[2].received(READY)
        self.assertEqual(len(self.listening), 1)

    def test_waits(self) -> None:
        """Longer after each death; but not after a worker that was well."""
        _, last = self.start()
        for seconds in (0.5, 1, 2, 4):
            last.end(1)
            self.clock.advance(seconds - 0.01)
            self.assertIs(self.children[-1], last)
            self.clock.advance(0.01)
            self.assertIsNot(self.children[-1], last)
            last = self.children[-1]
        last.received(READY)
        self.clock.advance(HEALTHY)
        last.end(0)
        self.clock.advance(0.5)
        self.assertEqual(len(self.children), 7)

    def test_waits_for_workers_that_begin(self) -> None:
        """Longer after each death, though each worker was at work for a while."""
        _, last = self.start()
        for seconds in (0.5, 1, 2, 4):
            self.clock.advance(HEALTHY - 0.01)
            last.end(1)
            self.clock.advance(seconds - 0.01)
            self.assertIs(self.children[-1], last)
            self.clock.advance(0.01)
            last = self.children[-1]
            last.received(READY)

    def test_what_a_dead_worker_leaves(self) -> None:
        """Its last lines are written, and its pipe and channel are closed."""
        one, two = self.start()
        one.end(-9)
        self.assertEqual((one.done, two.done), (["finish", "close"], []))

    def test_no_more_processes(self) -> None:
        """If fork(2) fails, that is one more death."""
        one, _ = self.start()
        self.error = OSError(11, "Resource temporarily unavailable")
        one.end(-9)
        self.clock.pump([0.5, 1.0])
        self.error = None
        self.clock.advance(1.99)
        self.assertEqual(len(self.children), 2)
        self.clock.advance(0.01)
        self.assertEqual(len(self.children), 3)

    def test_reload(self) -> None:
        """All workers are told, one that is still beginning, too; none of a mistake."""
        one, two = self.start()
        two.end(-9)
        self.clock.advance(0.5)
        self.supervisor.reload()
        self.assertEqual((one.messages, self.children[2].messages), ([RELOAD], [RELOAD]))
        self.is_sound = False
        self.supervisor.reload()
        self.assertEqual((one.messages, self.rereads), ([RELOAD], 2))
        self.supervisor.stopService()
        self.supervisor.reload()
        self.assertEqual((one.messages, self.rereads), ([RELOAD, KEEP], 2))

    def test_stop(self) -> None:
        """The first is the keeper. It is told when the other has closed its sockets."""
        one, two = self.start()
        stopped = self.supervisor.stopService()
        self.assertEqual((one.messages, two.messages), ([KEEP], [STOP]))
        two.received(CLOSED)
        self.assertEqual(one.messages, [KEEP, CLOSE])
        two.end(0)
        one.received(CLOSED)
        self.assertNoResult(stopped)
        self.assertEqual(len(self.closed), 0)
        one.end(0)
        self.successResultOf(stopped)
        self.assertEqual(len(self.closed), 1)
        self.clock.advance(100)
        self.assertEqual((one.messages, two.messages), ([KEEP, CLOSE], [STOP]))
        self.assertEqual((one.signals, two.signals, len(self.children)), ([], [], 2))

    def test_keeper(self) -> None:
        """A worker that is about to stop alone is not the keeper."""
        one, two = self.start()
        one.received(LEAVING)
        self.supervisor.stopService()
        self.assertEqual((one.messages, two.messages), ([STOP], [KEEP]))

    def test_keeper_that_has_died(self) -> None:
        """A worker's death may be seen before its channel is."""
        one, two = self.start()
        one.ended = -9
        stopped = self.supervisor.stopService()
        self.assertEqual(two.messages, [KEEP])
        one.received(b"")
        self.assertEqual(two.messages, [KEEP, CLOSE])
        two.end(0)
        self.successResultOf(stopped)

    def test_keeper_that_dies(self) -> None:
        """And its channel may be closed before its death is seen."""
        one, two = self.start()
        one.received(b"")
        self.supervisor.stopService()
        self.assertEqual(two.messages, [KEEP, CLOSE])

    def test_keeper_of_workers_that_all_leave(self) -> None:
        """All got the signal, as of Ctrl-C: the first is the keeper."""
        one, two = self.start()
        one.received(LEAVING)
        two.received(LEAVING)
        self.supervisor.stopService()
        self.assertEqual((one.messages, two.messages), ([KEEP], [STOP]))

    def test_a_worker_that_leaves(self) -> None:
        """The supervisor learns it half a second before."""
        channel = FakeChild()
        stops: list[None] = []
        stop_alone(self.clock, channel, lambda: stops.append(None))  # type: ignore[arg-type]
        self.assertEqual(channel.messages, [LEAVING])
        self.clock.advance(ALL_OR_ONE - 0.01)
        self.assertEqual(len(stops), 0)
        self.clock.advance(0.01)
        self.assertEqual(len(stops), 1)

    def test_stop_of_a_worker_that_has_not_begun(self) -> None:
        """It gets a signal: nobody reads messages there. The other one waits for it."""
        self.supervisor.startService()
        one, two = self.children
        two.received(READY)
        stopped = self.supervisor.stopService()
        self.assertEqual((one.messages, two.messages), ([STOP], [KEEP]))
        self.assertEqual((one.signals, two.signals), ([signal.SIGTERM], []))
        one.end(-signal.SIGTERM)
        self.assertEqual(two.messages, [KEEP, CLOSE])
        two.end(0)
        self.successResultOf(stopped)

    def test_stop_between_two_workers(self) -> None:
        """Nothing is waited for, and none begins any more."""
        one, two = self.start()
        one.end(1)
        two.end(1)
        self.successResultOf(self.supervisor.stopService())
        self.assertEqual(len(self.closed), 1)
        self.clock.advance(100)
        self.assertEqual(len(self.children), 2)

    def test_stop_of_one_alone(self) -> None:
        """No other worker accepts connections: the keeper waits for none."""
        one, two = self.start()
        one.end(1)
        stopped = self.supervisor.stopService()
        self.assertEqual(two.messages, [KEEP, CLOSE])
        two.end(0)
        self.successResultOf(stopped)

    def test_stop_beside_one_that_stops(self) -> None:
        """A worker that has closed its sockets is no keeper."""
        one, two = self.start()
        one.received(CLOSED)
        self.supervisor.stopService()
        self.assertEqual((one.messages, two.messages), ([STOP], [KEEP, CLOSE]))

    def test_stop_after_a_death(self) -> None:
        """The worker that has taken the place of a dead one stops as all do."""
        one, _ = self.start()
        one.end(1)
        self.clock.advance(0.5)
        _, two, three = self.children
        three.received(READY)
        stopped = self.supervisor.stopService()
        self.assertEqual((three.messages, two.messages), ([KEEP], [STOP]))
        two.end(0)
        three.end(0)
        self.successResultOf(stopped)

    def test_stop_of_one_that_hangs(self) -> None:
        """The keeper does not wait for it for long; it is killed after the grace."""
        one, two = self.start()
        stopped = self.supervisor.stopService()
        self.clock.advance(KEEPER_WAIT)
        self.assertEqual(one.messages, [KEEP, CLOSE])
        one.end(0)
        self.clock.advance(20.0 - KEEPER_WAIT - 0.01)
        self.assertEqual(two.signals, [])
        self.clock.advance(0.01)
        self.assertEqual((one.signals, two.signals), ([], [signal.SIGKILL]))
        two.ended = None
        two.received(b"")  # its files are closed, and it is no zombie yet
        self.clock.advance(0.005)
        self.assertNoResult(stopped)
        two.ended = -signal.SIGKILL
        self.clock.advance(0.005)
        self.successResultOf(stopped)

    def test_a_second_signal(self) -> None:
        """All are killed."""
        one, two = self.start()
        self.supervisor.stopService()
        one.end(0)
        self.supervisor.abandon()
        self.assertEqual((one.signals, two.signals), ([], [signal.SIGKILL]))


class WorkersTestCase(DaemonTestCase):
    """A daemon with two workers."""

    def setUp(self) -> None:
        super().setUp()
        self.make_store().create_table()
        #: Processes that may outlive their supervisor.
        self.pids: set[int] = set()
        self.addCleanup(self.end_workers)

    def end_workers(self) -> None:
        for pid in self.pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)

    def run_workers(
        self, *options: str, twistd: bool = False, before: str = "", **sections: Any
    ) -> Daemon:
        """
        Start it.

        :param before: see `spawn`.
        """
        own = ["dalga"] if twistd else []
        arguments = [*options, *own, "--config", self.ini(**sections), "--workers", "2"]
        return self.spawn(*arguments, twistd=twistd, before=before)

    async def listening(self, daemon: Daemon) -> tuple[str, dict[int, int]]:
        """Its URL, and the process of each worker by the worker's number."""
        url = await daemon.url()
        for number in (1, 2):
            await daemon.says(rf"worker {number} \[\S+ this worker is instance")
        return url, self.processes(daemon.output)

    def processes(self, output: str) -> dict[int, int]:
        """The process of each worker by the worker's number, as the log says."""
        found = re.findall(r"worker (\d) \[\S+ this worker is instance \S+-(\d+)-\w+\n", output)
        processes = {int(number): int(pid) for number, pid in found}
        self.pids.update(processes.values())
        return processes

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.pause(0.01)

    def wait_for_answers(self) -> list[Deferred[int]]:
        """Have the endpoint answer when the test says so: gives what it waits for."""
        answers: list[Deferred[int]] = []

        def answer(hit: Hit) -> Deferred[int]:
            answers.append(Deferred())
            return answers[-1]

        self.endpoint.answer = answer
        return answers

    async def put_now(self, url: str, count: int) -> None:
        for number in range(count):
            await self.put(f"{url}/jobs/now/{number}?one-off=1&immediate=1")

    def check_lines(self, output: str) -> None:
        """No line has a part of another, and nobody had an error that nobody expected."""
        for line in output.splitlines():
            self.assertRegex(line, LINE, output)
            self.assertEqual(len(LINE.findall(line)), 1, line)

    def left(self) -> int:
        """How many jobs are in the table."""
        with server(self.engine).connect(database=self.on_server.db) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT COUNT(*) FROM dalga")
            ((count,),) = cursor.fetchall()
            return int(count)


@each_engine(globals(), only=("mariadb", "mysql"))
class TogetherTests(WorkersTestCase):
    async def test_share(self) -> None:
        """
        Both workers answer at one address and run jobs, each job once; SIGTERM stops both in order.
        """
        answers = self.wait_for_answers()
        daemon = self.run_workers(jobs={"maxRunning": 4})
        url, pids = await self.listening(daemon)
        await self.put_now(url, 8)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 8)
        names = {hit.instance for hit in self.endpoint.hits}
        self.assertEqual({int(name.split("-")[-2]) for name in names}, set(pids.values()))
        seen: dict[int, str] = {}
        while len(seen) < 2:
            # They answer before their first heartbeats are written.
            status = await self.until_shown(f"{url}/status", total_instances=2)
            self.assertEqual(list(status)[-3:], ["counts_age", "worker", "workers"])
            self.assertEqual(status["workers"], 2)
            self.assertEqual((status["instance_running_jobs"], status["running_jobs"]), (4, 8))
            seen[status["worker"]] = status["instance_id"]
        self.assertEqual(set(seen.values()), names)
        daemon.send(signal.SIGTERM)
        for number in (1, 2):
            await daemon.says(rf"worker {number} \[\S+ stopping: waiting up to 10 s for 4 runs\n")
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=5)
        for answer in answers:
            answer.callback(200)
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(self.left(), 0)
        self.assertEqual(len({hit.body for hit in self.endpoint.hits}), 8)
        self.assertEqual(len(self.endpoint.hits), 8)
        self.check_lines(daemon.output)
        self.assertEqual(daemon.output.count("listens on"), 1)
        self.assertEqual(daemon.output.count("time zone data"), 1)
        self.assertRegex(daemon.output, r"dalga \S+ \(2 workers\) listens on http://127\.0\.0\.1:")
        self.assertNotIn("a new worker starts", daemon.output)
        self.assertFalse(any(map(alive, pids.values())))

    async def test_lines_as_json(self) -> None:
        """Each line is an object; those of workers say which worker."""
        daemon = self.run_workers(log={"format": "json"})
        await daemon.says(r"listens on http://")
        for number in (1, 2):
            await daemon.says(rf'"this worker is instance \S+", "worker": {number}, ')
        found = re.search(r"listens on (http://\S+)/,", daemon.output)
        assert found is not None
        await self.put_now(found[1], 8)
        await self.until(lambda: self.left() == 0)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        lines = [json.loads(line) for line in daemon.output.splitlines()]
        self.pids.update(
            int(line["instance"].split("-")[-2]) for line in lines if "instance" in line
        )
        ends = [line for line in lines if line.get("status") == 200]
        self.assertEqual(len(ends), 8)
        for line in ends:
            self.assertIn(line["worker"], (1, 2))
            self.assertEqual((line["path"], line["attempt"], line["method"]), ("now", 1, "POST"))
        stopped = [line.get("worker") for line in lines if line["message"] == "stopped"]
        self.assertEqual(sorted(stopped[:2]), [1, 2])
        self.assertEqual(stopped[2:], [None])

    async def test_many_lines(self) -> None:
        """Of what both write at once, no line is lost or broken."""
        daemon = self.run_workers("--debug")
        await self.listening(daemon)
        with server(self.engine).connect(database=self.on_server.db) as connection:
            connection.cursor().executemany(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due) VALUES "
                "(%s, 'b', '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
                [(f"path{number}" * 20,) for number in range(600)],
            )
            connection.commit()
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 600)
        await self.until(lambda: self.left() == 0)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)
        posted = re.findall(r"'(path\d+)\S* 'b': 200 OK", daemon.output)
        self.assertEqual((len(posted), len(set(posted))), (600, 600))
        for number in (1, 2):
            self.assertIn(f"worker {number} [dalga", daemon.output)


@each_engine(globals(), only=("mariadb",))
class StartTests(WorkersTestCase):
    async def test_what_is_wrong(self) -> None:
        """It is said once, in one line, before there is a worker; also where twistd detaches."""
        for twistd in (False, True):
            options = ["--pidfile=t.pid"] if twistd else []
            daemon = self.run_workers(*options, twistd=twistd, mysql={"table": "other"})
            self.assertEqual(await daemon.ended, 1)
            self.assertRegex(daemon.output, r"\Adalga: there is no table `other` .*\n\Z")

    async def test_auto(self) -> None:
        """As many as there are cores; where there is one, there is no supervisor."""
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        for cpus in ({min(before)}, {min(before), max(before)}):
            os.sched_setaffinity(0, cpus)  # what is started has it, too
            ini = self.ini(jobs={"workers": "auto"})
            daemon = self.spawn("--config", ini)
            url = await daemon.url()
            workers = (await self.get(f"{url}/status")).get("workers", 1)
            self.assertEqual(workers, cores())
            self.assertEqual(" workers) listens on " in daemon.output, workers > 1)
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0)

    async def test_tables(self) -> None:
        """They are made by one process, whatever the configuration says of workers."""
        ini = self.ini(jobs={"workers": 2}, mysql={"table": "other"})
        daemon = self.spawn("--config", ini, "--create-table")
        self.assertEqual(await daemon.ended, 0)
        self.assertRegex(daemon.output, r"\Acreated the tables `other`, .* and .*\n\Z")


@each_engine(globals(), only=("mariadb",))
class DeathTests(WorkersTestCase):
    """Whatever dies, the rest goes on, or stops in order."""

    async def test_a_worker(self) -> None:
        """
        P2, P3, P5: another one takes its place, and its runs come again when their leases end.
        """
        self.endpoint.answer = lambda hit: Deferred() if hit.attempt == 1 else 200
        daemon = self.run_workers(jobs={"maxRunning": 2}, endpoint={"timeout": "500ms"})
        url, pids = await self.listening(daemon)
        await self.put_now(url, 4)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 4)
        os.kill(pids[2], signal.SIGKILL)
        await daemon.says(
            rf"\[dalga.workers#warn\] worker 2 \(process {pids[2]}\) was ended by SIGKILL: "
            r"a new worker starts in 0.5 s\n"
        )
        await daemon.says(r"(?s)a new worker starts.* worker 2 \[\S+ this worker is instance")
        now = self.processes(daemon.output)
        self.assertEqual(now[1], pids[1])
        self.assertNotEqual(now[2], pids[2])
        await self.until(lambda: self.left() == 0)
        self.assertEqual(self.endpoint.overlaps(), [])
        attempts: dict[str, list[int]] = {}
        for hit in self.endpoint.hits:
            attempts.setdefault(hit.run, []).append(hit.attempt)
        # On a busy machine, an answer may come after the time-out, and so one more attempt.
        self.assertEqual({tuple(each[:2]) for each in attempts.values()}, {(1, 2)})
        self.assertEqual(len(attempts), 4)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)

    async def test_the_supervisor(self) -> None:
        """Its workers stop in order: what they have in hand is recorded."""
        answers = self.wait_for_answers()
        daemon = self.run_workers(jobs={"maxRunning": 1})
        url, pids = await self.listening(daemon)
        await self.put_now(url, 2)
        await self.endpoint.until(lambda: len(answers) == 2)
        daemon.send(signal.SIGKILL)
        for number in (1, 2):
            await daemon.says(rf"the supervisor is gone: worker {number} stops\n")
        for answer in answers:
            answer.callback(200)
        self.assertEqual(await daemon.ended, -signal.SIGKILL)  # when its output is closed by all
        await self.until(lambda: not any(map(alive, pids.values())))
        self.assertEqual(self.left(), 0)
        self.assertEqual(len(self.endpoint.hits), 2)

    async def test_one_that_is_told_to_stop(self) -> None:
        """By SIGTERM to a worker alone: it stops in order, and the address stays."""
        answers = self.wait_for_answers()
        daemon = self.run_workers(jobs={"maxRunning": 1})
        url, pids = await self.listening(daemon)
        await self.put_now(url, 2)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        os.kill(pids[1], signal.SIGTERM)
        await daemon.says(r"worker 1 \[\S+ stopping: waiting up to 10 s for 1 run\n")
        for _ in range(5):
            self.assertEqual((await self.get(f"{url}/status"))["worker"], 2)
        for answer in answers:
            answer.callback(200)
        await daemon.says(rf"worker 1 \(process {pids[1]}\) has ended with status 0: a new worker")
        await daemon.says(r"(?s)a new worker starts.* worker 1 \[\S+ this worker is instance")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)

    async def test_a_database_that_is_away(self) -> None:
        """A worker is tried again and again for its place. A stop does not wait for that."""
        account = f"{self.on_server.db}.w"[-30:]
        server(self.engine).create_accounts([account], self.on_server.db)
        daemon = self.run_workers(mysql={"user": account})
        _, pids = await self.listening(daemon)

        def lock(how: str) -> None:
            with server(self.engine).connect_as_root() as connection:
                connection.cursor().execute(f"ALTER USER '{account}'@'127.0.0.1' ACCOUNT {how}")

        lock("LOCK")
        os.kill(pids[1], signal.SIGKILL)
        await daemon.says(r"worker 1 \[dalga.workers#error\] user .* can't log in to database")
        await daemon.says(
            r"worker 1 \(process \d+\) has ended with status 1: a new worker starts in 1 s"
        )
        lock("UNLOCK")
        await daemon.says(r"(?s)status 1.* worker 1 \[\S+ this worker is instance")
        lock("LOCK")
        os.kill(self.processes(daemon.output)[1], signal.SIGKILL)
        await daemon.says(r"was ended by SIGKILL: a new worker starts in 2 s")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)


@each_engine(globals(), only=("mariadb",))
class UnreadTests(WorkersTestCase):
    """Nobody reads the standard output and error any more, as after ``2>&1 | head -1``."""

    async def run_unread(self) -> tuple[Daemon, str, dict[int, int]]:
        """Start it, with a run under way; gives its URL and processes, too."""
        self.endpoint.answer = lambda hit: Deferred()
        ini = self.ini(jobs={"shutdownTimeout": "1h"}, endpoint={"timeout": "1h"})
        daemon = self.spawn("--config", ini, "--workers", "2", buffered=True)
        url, pids = await self.listening(daemon)
        assert daemon.transport is not None
        daemon.transport.closeChildFD(1)
        daemon.transport.closeChildFD(2)
        return daemon, url, pids

    async def test_a_worker(self) -> None:
        """Another one takes its place."""
        _, url, pids = await self.run_unread()
        os.kill(pids[1], signal.SIGKILL)
        await self.until(lambda: not alive(pids[1]))
        os.kill(pids[2], signal.SIGSTOP)  # so that the other one answers
        status = await self.get(f"{url}/status")
        self.pids.add(int(status["instance_id"].split("-")[-2]))
        self.assertEqual(status["worker"], 1)

    async def test_the_supervisor(self) -> None:
        """Its workers stop."""
        daemon, _, pids = await self.run_unread()
        daemon.send(signal.SIGKILL)
        await self.until(lambda: not any(map(alive, pids.values())))

    async def test_a_second_signal(self) -> None:
        """Ends all at once."""
        daemon, url, pids = await self.run_unread()
        await self.put_now(url, 1)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        daemon.send(signal.SIGTERM)
        while daemon.status is None:
            # The first one may be noticed late, and another one soon after it is the same request.
            await self.pause(0.7)
            daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.status, 128 + signal.SIGTERM)
        await self.until(lambda: not any(map(alive, pids.values())))


@each_engine(globals(), only=("mariadb",))
class SignalTests(WorkersTestCase):
    async def test_all_processes_at_once(self) -> None:
        """Ctrl-C, systemd and pkill reach workers first, or last: one stop, and no new worker."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # On a busy machine the supervisor may need longer than half a second.
            daemon = self.run_workers(before="import dalga.workers as w; w.ALL_OR_ONE = 10.0")
            _, pids = await self.listening(daemon)
            for pid in pids.values():
                os.kill(pid, signal.SIGUSR1)
                os.kill(pid, signal.SIGHUP)
                os.kill(pid, number)
            await self.pause(0.1)
            daemon.send(number)
            self.assertEqual(await daemon.ended, 0)
            self.check_lines(daemon.output)
            self.assertNotIn("a new worker starts", daemon.output)

    async def test_a_second_one(self) -> None:
        """Ends all at once."""
        self.endpoint.answer = lambda hit: Deferred()
        # On a busy machine it may take longer than half a second until the first one is noticed.
        at_once = 2.0
        daemon = self.run_workers(before=f"import dalga.signals as s; s.AT_ONCE = {at_once}")
        url, pids = await self.listening(daemon)
        await self.put_now(url, 4)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 4)
        daemon.send(signal.SIGTERM)
        await daemon.says("stopping: waiting")
        daemon.send(signal.SIGTERM)  # at once: the same request
        await self.pause(at_once + 0.2)
        self.assertIsNone(daemon.status)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 128 + signal.SIGTERM)
        await self.until(lambda: not any(map(alive, pids.values())))
        self.assertEqual(self.left(), 4)

    async def test_one_that_hangs(self) -> None:
        """A worker that does not stop is killed when the time is over."""
        daemon = self.run_workers(
            jobs={"shutdownTimeout": "0"}, mysql={"dialTimeout": "100ms", "readTimeout": "2s"}
        )
        _, pids = await self.listening(daemon)
        os.kill(pids[2], signal.SIGSTOP)
        daemon.send(signal.SIGTERM)
        await daemon.says(r"worker 2 has not stopped within 4.1 s, and is killed")
        self.assertEqual(await daemon.ended, 0)
        self.assertFalse(any(map(alive, pids.values())))


@each_engine(globals(), only=("mariadb",))
class KeeperTests(WorkersTestCase):
    """The first worker accepts connections until no other does."""

    async def test_a_connection_at_a_stop(self) -> None:
        """One that is made when the others have closed their sockets is answered."""
        daemon = self.run_workers()
        url, pids = await self.listening(daemon)
        port = int(url.rsplit(":", 1)[1])
        os.kill(pids[1], signal.SIGSTOP)
        daemon.send(signal.SIGTERM)
        await daemon.says(rf"worker 2 \[\S+ \(TCP Port {port} Closed\)")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            os.kill(pids[1], signal.SIGCONT)
            answer = await deferToThread(client.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertIn(b'"worker":1,', answer)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)

    async def test_a_supervisor_that_dies_at_a_stop(self) -> None:
        """
        The keeper answers while it waits for the others, and does not wait when nobody can tell it
        any more that they have closed their sockets.
        """
        daemon = self.run_workers()
        url, pids = await self.listening(daemon)
        os.kill(pids[2], signal.SIGSTOP)  # so that the keeper waits
        daemon.send(signal.SIGTERM)
        await self.pause(0.3)
        self.assertEqual((await self.get(f"{url}/status"))["worker"], 1)
        daemon.send(signal.SIGKILL)
        await self.until(lambda: not alive(pids[1]))
        os.kill(pids[2], signal.SIGCONT)
        self.assertEqual(await daemon.ended, -signal.SIGKILL)  # when its output is closed by all


@each_engine(globals(), only=("mariadb",))
class TwistdTests(WorkersTestCase):
    def log(self, name: str) -> str:
        path = Path(self.folder, name)
        return path.read_text() if path.exists() else ""

    async def logged(self, name: str, pattern: str) -> re.Match[str]:
        while not (found := re.search(pattern, self.log(name))):
            await self.pause(0.02)
        return found

    async def test_detached(self) -> None:
        """
        The supervisor has the pid file, and the log file, which rotates; a worker that dies is made
        anew as ever.
        """
        starter = self.run_workers("--pidfile=t.pid", "--logfile=t.log", twistd=True)
        self.assertEqual((await starter.ended, starter.output), (0, ""))
        pid = int(Path(self.folder, "t.pid").read_text())
        self.pids.add(pid)
        url = (await self.logged("t.log", r"listens on (http://\S+)/,"))[1]
        for number in (1, 2):
            await self.logged("t.log", rf"worker {number} \[\S+ this worker is")
        os.kill(pid, signal.SIGUSR1)
        await self.until(lambda: bool(self.log("t.log.1")))
        pids = self.processes(self.log("t.log.1"))
        os.kill(pids[1], signal.SIGKILL)
        await self.logged("t.log", r"(?s)was ended by SIGKILL.*worker 1 \[\S+ this worker is")
        pids = self.processes(self.log("t.log.1") + self.log("t.log"))
        await self.put_now(url, 1)
        await self.logged("t.log", r"worker \d \[\S+ .*'now' '0'.*: 200 OK")
        os.kill(pid, signal.SIGTERM)
        await self.until(lambda: not Path(self.folder, "t.pid").exists())
        await self.logged("t.log", r"Server Shut Down.\n$")
        self.assertFalse(any(map(alive, pids.values())))
        self.check_lines(self.log("t.log"))
        for line in ("starting up", "listens on", "(2 workers)", "Server Shut Down."):
            self.assertEqual((self.log("t.log.1") + self.log("t.log")).count(line), 1, line)

    async def test_another_user_in_another_root(self) -> None:
        """
        A worker that is made later is that user, too, and needs no file of those that only root can
        reach, as the configuration.
        """
        place = mkdtemp()
        self.addCleanup(rmtree, place)
        options = [f"--uid={NOBODY.pw_uid}", "--umask=027"]
        if ROOT:
            os.chmod(place, 0o755)
            os.mkdir(os.path.join(place, "dev"))
            Path(place, "dev", "null").touch()  # Twisted opens it, of one process, too
            options.append(f"--chroot={place}")
        daemon = self.run_workers("-n", "--pidfile=", *options, twistd=True)
        url, pids = await self.listening(daemon)
        os.unlink(os.path.join(self.folder, "dalga.ini"))
        os.kill(pids[1], signal.SIGKILL)
        await daemon.says(r"(?s)SIGKILL.*worker 1 \[\S+ this worker is")
        for pid in self.processes(daemon.output).values():
            status = Path(f"/proc/{pid}/status").read_text()
            self.assertRegex(status, rf"Uid:\s+{NOBODY.pw_uid}\s+{NOBODY.pw_uid}\s")
            self.assertRegex(status, r"Umask:\s+0027")
            if ROOT:
                self.assertEqual(os.readlink(f"/proc/{pid}/root"), place)
        await self.put_now(url, 3)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 3)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)

    async def test_an_observer_of_ones_own(self) -> None:
        """`--logger`: each process hands its events to it."""
        Path(self.folder, "mine.py").write_text(
            "import os\n"
            "from twisted.logger import ILogObserver, formatEvent\n"
            "from zope.interface import provider\n\n"
            "def make():\n"
            "    @provider(ILogObserver)\n"
            "    def observe(event):\n"
            "        line = f'{os.getpid()} {formatEvent(event)}\\n'\n"
            "        os.write(1, line.encode())\n"
            "    return observe\n"
        )
        daemon = self.run_workers("-n", "--pidfile=", "--logger=mine.make", twistd=True)
        for _ in (1, 2):
            await daemon.says(r"(?s)this worker is instance.*this worker is instance")
        found = re.findall(r"(\d+) this worker is instance \S+-(\d+)-", daemon.output)
        self.assertEqual(len({pid for pid, _ in found}), 2)
        for pid, named in found:
            self.assertEqual(pid, named)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(daemon.output.count(" stopped\n"), 3)


@each_engine(globals(), only=("sqlite",))
class OneTests(DaemonTestCase):
    """Where there is one process."""

    async def test_refused(self) -> None:
        """SQLite's file is for one process. The option goes before the variable."""
        daemon = self.spawn("--config", self.ini(), "--workers", "2")
        self.assertEqual(await daemon.ended, 1)
        self.assertEqual(
            daemon.output,
            "dalga: --workers is '2': an SQLite file is for one process; keep the jobs in MySQL or "
            "MariaDB ([mysql]), or give 1\n",
        )

    async def test_auto(self) -> None:
        """As many as are of use, which is one; and the log says so."""
        daemon = self.spawn("--config", self.ini(), "--workers", "auto")
        url = await daemon.url()
        await daemon.says(r"#warn\] --workers is auto, which is 1 here: an SQLite file is for one")
        self.assertNotIn("workers", await self.get(f"{url}/status"))
        assert daemon.transport is not None
        children = Path(f"/proc/{daemon.transport.pid}/task/{daemon.transport.pid}/children")
        self.assertEqual(children.read_text(), "")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
