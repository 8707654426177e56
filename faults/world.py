"""
What a scenario has at hand: a database, an endpoint, instances, a client, and a proxy where it is
wanted; and the history of all of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import time
from typing import Any

import pymysql
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from dalga.model.permit import digest_of, new_token
from faults.checker import Bounds
from faults.client import Client
from faults.endpoint import Endpoint
from faults.history import (
    Alert,
    Entry,
    Fault,
    History,
    Key,
    Post,
    Record,
    Row,
    Said,
    Tried,
    Verb,
    plainly,
    says,
)
from faults.proxy import Proxy
from faults.watch import Limits, Usage, Watch, overcrowded, oversized, overstayed, overworked
from tests.servers import Server

CHECKOUT = Path(__file__).resolve().parent.parent

#: The endpoint's time-out that instances are given, in seconds, and the lease that comes of it.
TIMEOUT = 3
LEASE = TIMEOUT + 10

#: How long a daemon that is stopped lets runs go on, in seconds, and how many sessions it may have.
GRACE = 10
SESSIONS = 8

#: When one is killed that was told to stop, in seconds.
STOP = 40.0

#: Accounts that are made at once.
ACCOUNTS = 8

#: How long anything that is waited for may take, in seconds.
PATIENCE = 180.0

#: What is left of jobs at the end.
ROWS = (
    "SELECT j.id, j.path, j.body, j.disabled, j.token, j.override, j.scheduled, j.due,"
    " j.run, j.attempts, j.extras, j.standing, d.members, d.payload"
    " FROM dalga AS j LEFT JOIN dalga_details AS d ON d.id = j.id ORDER BY j.id"
)
#: The bit of `extras` of a job that has an open record, and the `standing` of one whose run was
#: given up, and whose row names it for the case that somebody triggers the job.
OPEN, STOPPED = 16, 2

#: What the table of runs holds. Open records, which have no result, are on a shelf of their own.
RECORDS = (
    "SELECT job, run, path, body, failed, result, scheduled, started, ended, attempts, status,"
    " instance, more FROM dalga_runs"
)
OPEN_SHELF = 2

#: What the audit list holds of jobs.
ENTRIES = "SELECT path, body, verb FROM dalga_audit WHERE path IS NOT NULL"

#: What the numbers mean in the column of results.
RESULTS = ("succeeded", "removed", "disabled", "given_up", "skipped", "overridden", "cancelled")

#: How many rows of a table beside the jobs are of no job.
WITHOUT_JOB = (
    "SELECT COUNT(*) FROM {table} AS s WHERE NOT EXISTS"
    " (SELECT 1 FROM dalga AS j WHERE j.id = s.id AND j.path = s.path AND j.body = s.body)"
)

#: How the table holds a time.
TIME = "%Y-%m-%d %H:%M:%S.%f"

#: The files of a package with a mechanism taken out are looked for before the checkout's.
MUTANT = "FAULTS_PACKAGE"


class Unexpected(Exception):
    """A scenario did not come about as it was meant to."""


class Instance(ProcessProtocol):
    """A daemon in a process of its own."""

    def __init__(self, log: Path) -> None:
        self.log = log
        #: The exit status, minus the signal that ended it; None while it runs.
        self.status: int | None = None
        self.ended: Deferred[int] = Deferred()
        #: Where it listens, and where clients may ask; empty where they may not.
        self.address = self.url = ""
        self.stopped = False
        #: Its configuration file.
        self.ini = Path()
        #: Its account on the server.
        self.account = ""
        self.usage = Usage()
        #: How many sessions it may have on the servers.
        self.sessions = SESSIONS
        #: When it was first told to stop, and when it had ended, in seconds since the epoch.
        self.told_at = self.ended_at = 0.0

    def processEnded(self, reason: Failure) -> None:
        ended = reason.value
        assert isinstance(ended, ProcessDone | ProcessTerminated)
        self.status = -ended.signal if ended.signal is not None else ended.exitCode
        self.ended_at = time()
        self.ended.callback(self.status)

    @property
    def alive(self) -> bool:
        """Whether it runs, and is not held."""
        return self.status is None and not self.stopped

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self.transport is not None
        return int(self.transport.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.status is None and self.transport is not None:
            self.stopped = number == signal.SIGSTOP
            if number == signal.SIGTERM:
                self.told_at = self.told_at or time()
            self.transport.signalProcess(number)

    @property
    def hold(self) -> Path:
        """The file that has it stop itself, where it was asked to look for it."""
        return self.log.with_suffix(".hold")

    def is_held(self) -> bool:
        """Whether it has stopped, by itself or otherwise (proc(5), the state in stat)."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        self.stopped = stat.rpartition(")")[2].split()[0] == "T"
        return self.stopped

    @property
    def name(self) -> str:
        """What it calls itself towards the endpoint, once it listens."""
        return self.said(r"dalga \S+ \(", ")")

    def output(self) -> str:
        """All that it has said so far."""
        return self.log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The processes of its workers that are at work, if it was started with workers."""
        begun = re.findall(r" worker \d+ \[.*this worker is instance .*-(\d+)-", self.output())
        ended = re.findall(r"worker \d+ \(process (\d+)\)", self.output())
        return [int(pid) for pid in begun if pid not in ended]

    def said(self, after: str, until: str) -> str:
        """What stands between two marks in its log; empty if they are not there yet."""
        found = re.search(f"{after}([^{re.escape(until)}]*){re.escape(until)}", self.output())
        return found[1] if found else ""


class World:
    """
    One scenario's world. `close` ends all of it.

    :param seconds: how long the scenario is to go on, where that is its choice.
    """

    def __init__(
        self, reactor: Any, server: Server | None, folder: Path, seed: int, seconds: float
    ) -> None:
        self.reactor = reactor
        self.server = server
        self.folder = folder
        self.random = Random(seed)
        self.seconds = seconds
        self.bounds = Bounds(lease=float(LEASE))
        self.history = History()
        self.endpoint = Endpoint(reactor, folder / "posts.jsonl")
        #: The tokens that instances take, and what they sign with: new ones first.
        self.tokens = [self.new_token()]
        self.secrets = [self.new_secret()]
        self.endpoint.secrets = self.secrets
        self.instances: list[Instance] = []
        self.client = Client(reactor, self.urls, self.random, self.tokens[0])
        self.database = ""
        #: Where instances may have sessions; `server` alone, if not given.
        self.servers: list[Server] = []
        #: Accounts of the database that no instance has yet.
        self._accounts: list[str] = []
        self.watch = Watch(
            lambda: list(self.instances),
            lambda: self.servers or ([] if self.server is None else [self.server]),
        )
        #: What an instance may take; a scenario may know of more that is needed.
        self.limits = Limits()
        #: When those that were left were told to stop, since the epoch.
        self._told = 0.0
        #: A small disk, where the scenario asked for one.
        self.disk: Path | None = None
        #: Jobs of which the checker is not told what was said, as that has no order.
        self.foreign: set[Key] = set()
        self.proxies: list[Proxy] = []
        #: Who is told by alerts, where somebody is.
        self.receiver: Endpoint | None = None
        #: What is to be called at the very end, in a thread.
        self.at_end: list[Callable[[], object]] = []
        #: What a scenario wants to be seen in the table: "slowest answer", "0.1 s".
        self.notes: dict[str, str] = {}
        #: What the scenario itself found to be wrong.
        self.objections: list[str] = []

    async def open(self) -> None:
        """A fresh database, and the endpoint."""
        self.endpoint.listen()
        if self.server is not None:
            self.database = await deferToThread(self.server.create_database)
        self.watch.start()

    async def close(self) -> None:
        """End what was started."""
        self.client.close()
        await deferToThread(self.watch.stop)
        # One whose process was never begun has no end that could be waited for.
        begun = [instance for instance in self.instances if instance.transport is not None]
        for instance in begun:
            instance.signal(signal.SIGKILL)
        for instance in begun:
            if instance.status is None:
                await instance.ended
        listening: list[Proxy | Endpoint] = [*self.proxies, self.endpoint]
        if self.receiver is not None:
            listening.append(self.receiver)
        for one in listening:
            await Deferred.fromCoroutine(one.close()).addTimeout(10, self.reactor)
        if self.server is not None and self.server.pid is not None and self.database:
            await deferToThread(self.server.drop_database, self.database)
        for call in self.at_end:
            await deferToThread(call)

    # What there is

    @property
    def sqlite(self) -> Path:
        """SQLite's file."""
        return (self.disk or self.folder) / "dalga.sqlite"

    def proxy(self, host: str, port: int) -> Proxy:
        """A proxy to somewhere, listening."""
        proxy = Proxy(self.reactor, host, port)
        proxy.listen()
        self.proxies.append(proxy)
        return proxy

    def receive_alerts(self) -> Endpoint:
        """An endpoint for alerts, listening."""
        self.receiver = Endpoint(self.reactor, self.folder / "alerts.jsonl")
        self.receiver.secrets = self.endpoint.secrets
        self.receiver.listen()
        return self.receiver

    def without_tokens(self) -> None:
        """
        Let instances take requests of everybody. PUTs that come at the same time are one
        transaction then; one with a token has a transaction of its own.
        """
        self.tokens.clear()
        self.client.token = ""

    def new_token(self) -> str:
        return new_token(self.random.randbytes(32))

    def new_secret(self) -> str:
        return "whsec_" + b64encode(self.random.randbytes(32)).decode()

    @property
    def authorization(self) -> bytes:
        """A line of a request by hand, with the client's token."""
        return f"Authorization: Bearer {self.client.token}\r\n".encode()

    def rewrite(self, instance: Instance) -> None:
        """Put `tokens` and `secrets` as they are now into an instance's file."""
        text = re.sub(
            "(?m)^secrets = .*$", f"secrets = {', '.join(self.secrets)}", instance.ini.read_text()
        )
        kept = re.sub(r"(?m)^bench\d+ = .*\n", "", text)
        new = instance.ini.with_suffix(".new")
        new.write_text(kept.replace("[tokens]\n", "[tokens]\n" + self._token_lines()))
        new.rename(instance.ini)

    def _token_lines(self) -> str:
        return "".join(
            f"bench{number} = write sha256:{digest_of(token.encode()).hex()}\n"
            for number, token in enumerate(self.tokens)
        )

    def alerts(self) -> list[Alert]:
        """What was delivered to it so far."""
        return [] if self.receiver is None else list(map(_alert, self.receiver.posts))

    def before_database(self) -> Proxy:
        """A proxy before the database."""
        assert self.server is not None
        return self.proxy(self.server.host, self.server.port)

    def urls(self) -> list[str]:
        """Where the instances are that listen, and are not held."""
        return [instance.url for instance in self.instances if instance.alive and instance.url]

    # Instances

    async def _account(self) -> str:
        """A fresh account, so that the server knows the instance's sessions apart from others."""

        def create() -> bool:
            assert self.server is not None
            with suppress(pymysql.Error):  # it may be away just now
                self.server.create_accounts(names, self.database)
                return True
            return False

        if not self._accounts:
            number = len(self.instances)
            names = [f"{self.database}.{n}" for n in range(number, number + ACCOUNTS)]
            while not await deferToThread(create):
                await self.pause(0.2)
            self._accounts = names
        return self._accounts.pop(0)

    def ini(
        self, account: str, database: Proxy | None = None, **sections: Mapping[str, object]
    ) -> Path:
        """A configuration file."""
        wanted: dict[str, dict[str, object]] = {
            "endpoint": {
                "baseurl": self.endpoint.url,
                "timeout": f"{TIMEOUT}s",
                "secrets": ", ".join(self.secrets),
            },
            "listen": {"port": 0},
            "jobs": {"retryInterval": "1s", "retryMaxInterval": "3s"},
        }
        if self.server is None:
            wanted["sqlite"] = {"path": self.sqlite}
        else:
            wanted["mysql"] = {
                "host": self.server.host,
                "port": self.server.port if database is None else database.port,
                "db": self.database,
                "user": account,
                "password": f'"{self.server.password}"',
            }
            if database is not None:  # which has to see a COMMIT to lose its reply
                wanted["mysql"]["ssl-mode"] = "disabled"
        for section, keys in sections.items():
            wanted.setdefault(section, {}).update(keys)
        if "alerts" in wanted:
            wanted["alerts"]["secrets"] = ", ".join(self.secrets)
        path = self.folder / f"dalga{len(self.instances)}.ini"
        with open(path, "w") as file:
            for section, keys in wanted.items():
                file.write(f"[{section}]\n")
                file.writelines(f"{key} = {value}\n" for key, value in keys.items())
            if self.tokens:
                file.write(f"[tokens]\n{self._token_lines()}")
        return path

    async def start(
        self,
        database: Proxy | None = None,
        faults: Mapping[str, object] | None = None,
        wait: bool = True,
        may_hold: bool = False,
        **sections: Mapping[str, object],
    ) -> Instance:
        """
        Start an instance, and wait until it listens. If no other instance runs meanwhile, that may
        make things late: on a busy machine a start may take longer than a lease.

        :param database: the proxy through which it is to reach the database.
        :param faults: what it is to do to itself; see `faults.instance`.
        :param may_hold: whether `hold` is to work on it.
        """
        account = "" if self.server is None else await self._account()
        ini = self.ini(account, database, **sections)
        instance = Instance(self.folder / f"dalga{len(self.instances)}.log")
        instance.ini = ini
        instance.account = account
        if (most := sections.get("mysql", {}).get("maxOpenConns")) is not None:
            instance.sessions = int(str(most))
        instance.sessions *= int(str(sections.get("jobs", {}).get("workers", 1)))
        is_alone = bool(self.instances) and all(
            other.status is not None for other in self.instances
        )
        self.instances.append(instance)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DALGA_")
        }
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.environ.get(MUTANT), str(CHECKOUT), environment.get("PYTHONPATH")])
        )
        environment["PYTHONUNBUFFERED"] = "1"
        faults = {**(faults or {}), "hold": str(instance.hold)} if may_hold else faults
        environment["FAULTS"] = json.dumps(faults or {})
        if len(self.instances) == 1 and self.server is not None:
            await self._run(environment, ini, "--create-table")
        with open(instance.log, "ab") as log:
            self.reactor.spawnProcess(
                instance,
                sys.executable,
                [sys.executable, "-m", "faults.instance", "--config", str(ini)],
                environment,
                self.folder,
                childFDs={1: log.fileno(), 2: log.fileno()},
            )
        if wait:
            with self.faulty("no instance", repeats=False) if is_alone else nullcontext():
                await self.listening(instance)
        return instance

    async def start_many(self, number: int, **options: Any) -> list[Instance]:
        """Start some instances alike."""
        return [await self.start(**options) for _ in range(number)]

    async def listening(self, instance: Instance) -> None:
        """Wait until it does."""

        def listens() -> bool:
            if instance.status is not None:
                raise Unexpected(f"an instance ended: {instance.output()[-2000:]}")
            instance.address = instance.said("listens on ", ",").rstrip("/")
            instance.url = instance.address
            return bool(instance.url)

        await self.until(listens, "an instance to listen", 0.02)

    async def _run(self, environment: dict[str, str], ini: Path, *arguments: str) -> None:
        done = await deferToThread(
            subprocess.run,
            [sys.executable, "-m", "faults.instance", "--config", str(ini), *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Unexpected(done.stdout + done.stderr)

    async def hold(self, instances: list[Instance]) -> None:
        """
        Have instances that were started with `may_hold` stop themselves, each when it has claimed
        runs and begun none of them.
        """
        for instance in instances:
            instance.hold.touch()
        await self.until(
            lambda: all(instance.is_held() for instance in instances), "instances to be held"
        )

    async def kill(self, instance: Instance) -> None:
        """SIGKILL, and wait until it is gone; its runs come back when their leases are over."""
        instance.signal(signal.SIGKILL)
        await instance.ended
        self.died(instance)

    async def retire(self, instance: Instance) -> None:
        """Stop it in order. Nobody asks it any more: it is taken from a load balancer first."""
        instance.url = ""
        instance.signal(signal.SIGTERM)
        await self._ends(instance)

    async def _ends(self, instance: Instance) -> None:
        """Wait for the end of one that was told to stop; after too long it is killed."""
        timer = self.reactor.callLater(STOP, instance.signal, signal.SIGKILL)
        if await instance.ended != 0:
            self.objections.append(f"SIGTERM ended it with {instance.status}")
        if timer.active():
            timer.cancel()

    def died(self, instance: Instance) -> None:
        """It was killed just now."""
        self.fault("SIGKILL", time(), time() + LEASE)

    # Faults

    def fault(
        self,
        kind: str,
        start: float,
        end: float,
        repeats: bool = True,
        held: str = "",
        loses: bool = False,
    ) -> None:
        """Note that something was wrong."""
        self.history.faults.append(Fault(kind, start, end, repeats, held, loses))

    @contextmanager
    def faulty(
        self,
        kind: str,
        after: float = 0.0,
        repeats: bool = True,
        held: str = "",
        loses: bool = False,
    ) -> Iterator[None]:
        """
        Note that something is wrong meanwhile.

        :param after: for how many seconds after it things may still be late.
        :param held: the name of the instance that is held meanwhile.
        :param loses: whether the database may lose what it has committed.
        """
        start = time()
        try:
            yield
        finally:
            self.fault(kind, start, time() + after, repeats, held, loses)

    # Waiting

    def pause(self, seconds: float) -> Deferred[None]:
        """Let time go by."""
        return deferLater(self.reactor, seconds, lambda: None)

    async def until(
        self, condition: Callable[[], bool], what: str, pause: float = 0.05, limit: float = PATIENCE
    ) -> None:
        """
        Ask again and again.

        :raises Unexpected: if it takes longer than `limit` seconds.
        """
        ends = time() + limit
        while not condition():
            if time() > ends:
                raise Unexpected(f"waited {limit:g} s for {what}, in vain")
            await self.pause(pause)

    async def until_done(self, number: int, limit: float = PATIENCE) -> None:
        """Wait until so many different jobs have been done."""
        done: set[tuple[str, str]] = set()
        seen = 0

        def enough() -> bool:
            nonlocal seen
            posts = self.endpoint.posts
            while seen < len(posts) and posts[seen].end is not None:
                if posts[seen].done:
                    done.add(posts[seen].key)
                seen += 1
            return len(done) >= number

        await self.until(enough, f"{number} jobs to be done", 0.05, limit)

    # SQL

    async def sql(self, statement: str, *parameters: object, mode: str | None = None) -> list[Any]:
        """
        As a stranger would, and commit.

        :param mode: the session's sql_mode; the server's if not given.
        """
        found: list[Any] = await deferToThread(self._sql, statement, parameters, mode)
        return found

    def _sql(self, statement: str, parameters: tuple[object, ...], mode: str | None) -> list[Any]:
        with self.connect() as connection:
            cursor = connection.cursor()
            if mode is not None:
                cursor.execute("SET SESSION sql_mode = %s", (mode,))
            cursor.execute(statement if self.server else statement.replace("%s", "?"), parameters)
            rows = list(cursor.fetchall())
            connection.commit()
        return rows

    def connect(self) -> Any:
        """A stranger's connection, to be closed."""
        if self.server is None:
            return closing(sqlite3.connect(self.sqlite, timeout=30))
        return self.server.connect(database=self.database)

    async def deadlocks(self) -> int:
        """How many the server has broken so far."""
        statement = (
            "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"
        )

        def count() -> int:
            assert self.server is not None
            with self.server.connect_as_root() as connection:
                cursor = connection.cursor()
                cursor.execute(statement)
                ((found,),) = cursor.fetchall()
                return int(found)

        return await deferToThread(count)

    async def insert(self, keys: list[Key], due: float, foreign: bool = False) -> None:
        """
        Put one-off jobs into the table, all due then.

        :param foreign: whether the checker is not to be told when.
        """
        at = datetime.fromtimestamp(due, UTC).strftime(TIME)
        rows = [(path.encode(), body.encode(), "", at, at, at) for path, body in keys]
        asked = time()
        await deferToThread(self._insert, rows)
        if foreign:
            self.foreign.update(keys)
        else:
            self.client.said += [
                Said(key, Verb.PUT, asked, time(), 0, due - asked, int(due), by_sql=True)
                for key in keys
            ]

    async def insert_raw(self, path: bytes, body: bytes, due: float) -> None:
        """Put in what no PUT takes."""
        at = datetime.fromtimestamp(due, UTC).strftime(TIME)
        await deferToThread(self._insert, [(path, body, "", at, at, at)])
        self.foreign.add((_text(path), _text(body)))

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        statement = (
            "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
        )
        if self.server is None:
            statement = statement.replace("%s", "?")
        with self.connect() as connection:
            connection.cursor().executemany(statement, rows)
            connection.commit()

    # The end

    async def settle(self) -> None:
        """Let each job have a run that is not late any more."""
        await self.pause(6.0)

    async def until_empty(self, limit: float = PATIENCE) -> None:
        """Wait until nothing is left in the table."""
        ends = time() + limit
        while (await self.sql("SELECT COUNT(*) FROM dalga"))[0][0]:
            if time() > ends:
                raise Unexpected(f"jobs were left in the table for {limit:g} s")
            await self.pause(0.1)

    async def finish(self) -> History:
        """Stop the instances in order, and put the history together."""
        self.client.close()
        ended = self._told = time()
        for instance in self.instances:
            instance.signal(signal.SIGCONT)
            instance.signal(signal.SIGTERM)
        for instance in self.instances:
            if instance.status is None:
                await self._ends(instance)
        await deferToThread(self.watch.stop)
        self._judge()
        self.history.ended = ended
        self.history.posts = list(self.endpoint.posts)
        self.history.foreign = set(self.foreign)
        self.history.alerts = self.alerts()
        self.history.said = [word for word in self.client.said if word.key not in self.foreign]
        rows = await self.sql(ROWS)
        tags: defaultdict[int, list[str]] = defaultdict(list)
        for number, tag in await self.sql("SELECT id, tag FROM dalga_tags ORDER BY tag"):
            tags[number].append(_text(tag))
        self.history.rows = [_row(tags[number], number, *row) for number, *row in rows]
        self.history.records = [_record(*row) for row in await self.sql(RECORDS)]
        if self.tokens:
            self.history.entries = [
                Entry((_text(path), _text(body)), _text(verb))
                for path, body, verb in await self.sql(ENTRIES)
            ]
        for table in ("dalga_details", "dalga_tags"):
            ((left,),) = await self.sql(WITHOUT_JOB.format(table=table))
            if left:
                self.objections.append(f"{left} rows of {table} are of no job")
        return self.history

    def _judge(self) -> None:
        """What must not be in any scenario, whatever is done in it."""
        for instance in self.instances:
            if "Traceback" in (output := instance.output()):
                since = output.index("Traceback")
                self.objections.append(f"a traceback: {output[max(0, since - 200) : since + 1500]}")
            self._judge_usage(instance)
        client = self.client
        self.objections += client.wrongly
        for endpoint in filter(None, (self.endpoint, self.receiver)):
            self.objections += endpoint.unsigned
        has_asked = any(not word.by_sql for word in client.said)
        if self.tokens and has_asked and not client.kept_out:
            self.objections.append("nobody without a token was refused: nobody has tried")
        if not self.history.faults and client.statuses[503]:
            self.objections.append(f"{client.statuses[503]} times 503 with nothing wrong")
        if client.without_retry_after:
            self.objections.append(f"{client.without_retry_after} times 503 without Retry-After")
        if unknown := {status for status in client.statuses if status >= 500} - {503}:
            self.objections.append(f"answered with {unknown}")

    def _judge_usage(self, instance: Instance) -> None:
        """What it took, and how long it needed to stop."""
        usage, limits = instance.usage, self.limits
        posts = [post.start for post in self.endpoint.posts if post.instance == instance.name]
        answers = [at for at, url in self.client.answers if url == instance.address]
        found = overworked(usage.samples, sorted(posts + answers), limits)
        found += overcrowded(usage.sessions, instance.sessions, limits)
        found += oversized(usage.samples, limits)
        if instance.told_at and instance.ended_at:
            # At the end all is well: what runs has its answer within the time-out, and is recorded.
            grace = float(GRACE) if instance.told_at < self._told else TIMEOUT + 2.0
            found += overstayed(instance.ended_at - instance.told_at, grace, limits)
        self.objections += [f"{instance.log.stem} {one}" for one in found]

    def usages(self) -> list[str]:
        """What each instance took, in a line."""
        return [f"{one.log.stem}: {one.usage}" for one in self.instances]


def _row(
    tags: list[str],
    number: int,
    path: Any,
    body: Any,
    disabled: Any,
    token: Any,
    override: Any,
    scheduled: Any,
    due: Any,
    run: Any,
    attempts: Any,
    extras: Any,
    standing: Any,
    members: Any,
    payload: Any,
) -> Row:
    key = (_text(path), _text(body))
    times = _seconds(scheduled), _seconds(due)
    said = plainly(key[1])
    if members is not None:
        found = json.loads(members)
        method, headers = found.get("method", "POST"), dict(found.get("headers", ()))
        content = key[1].encode() if payload is None else payload
        said = says(method, headers.get("X-Says", ""), content)
    return Row(
        key,
        disabled == 1,
        token is not None,
        override == 2,
        *times,
        said,
        tuple(tags),
        None if run is None or standing == STOPPED else _run(run, number),
        int(attempts),
        bool(extras & OPEN),
    )


def _run(half: Any, number: int) -> str:
    """A run's id, as requests have it."""
    return f"{bytes(half).hex()}-{number}"


def _record(
    number: Any,
    half: Any,
    path: Any,
    body: Any,
    shelf: Any,
    result: Any,
    scheduled: Any,
    started: Any,
    ended: Any,
    attempts: Any,
    status: Any,
    instance: Any,
    more: Any,
) -> Record:
    listed = json.loads(more).get("attempts", ()) if more else ()
    return Record(
        (_text(path), _text(body)),
        _run(half, number),
        None if shelf == OPEN_SHELF else RESULTS[result],
        _seconds(scheduled),
        _seconds(started),
        _seconds(ended),
        attempts,
        status,
        _text(instance),
        tuple(Tried(one["n"], one["instance"], one.get("status")) for one in listed),
    )


def _alert(post: Post) -> Alert:
    """What a request to the receiver of alerts tells."""
    content = json.loads(post.body)
    job = content.get("job")
    return Alert(
        content["id"],
        content["event"],
        None if job is None else (job["path"], job["body"]),
        datetime.fromisoformat(content["at"]).timestamp(),
        post.start,
    )


def _seconds(value: Any) -> float | None:
    """A time in the table, since the epoch; None where it is none, as in a poisoned row."""
    try:
        if not isinstance(value, datetime):
            value = datetime.fromisoformat(str(value))
        return float(value.replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
