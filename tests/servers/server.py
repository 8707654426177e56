"""Private MariaDB and MySQL servers for tests: own data, own port, gone with the process."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pymysql
from pymysql.connections import Connection

ENGINES = ("mariadb", "mysql")
HOST = "127.0.0.1"
USER = "dalga"
PASSWORD = "correct horse"

#: A busy two-core machine and a recovery after a kill fit in this many seconds.
START_TIMEOUT = 90.0
STOP_TIMEOUT = 60.0

CHECKOUT = Path(__file__).resolve().parents[2]
# A socket's path longer than this does not fit in the kernel's structure.
LONGEST_SOCKET_PATH = 100
# With an engine's own log-in method (caching_sha2_password on MySQL), and no rights as yet.
CREATE_USER = f"CREATE USER '{USER}'@'{HOST}' IDENTIFIED BY '{PASSWORD}';\n"

# The settings that decide how durable and how fast a commit is are the engines' own defaults;
# they are spelled out because the tests' promises and the benchmark's numbers rest on them.
OPTIONS = {
    "mariadb": ("--innodb-flush-log-at-trx-commit=1",),
    "mysql": (
        "--innodb-flush-log-at-trx-commit=1",
        "--sync-binlog=1",
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",
    ),
}


class ServerError(Exception):
    """A server is missing, or does not start or stop as it should."""


class _PortTaken(ServerError):
    """Somebody else listens on the port."""


def start_server(engine: str, options: Sequence[str] = (), within: Path | None = None) -> Server:
    """Start a new, empty server; ``stop()`` ends it and removes its data.

    ``options`` are further options of the engine's command line, such as
    ``--innodb-lock-wait-timeout=1``; ``within`` is the folder for its data, if not the usual one.
    """
    for attempt in range(5):
        server = Server(engine, options, within)
        try:
            server.start()
            return server
        except _PortTaken:
            server.stop()
            if attempt == 4:
                raise
        except BaseException:
            server.stop()
            raise
    raise AssertionError("not reached")


class Server:
    """A database server of its own, on 127.0.0.1.

    ``user`` logs in over TCP with ``password`` and may use what ``create_database`` made.
    ``connect_as_root`` may do all. A server may be killed and started again as often as a test
    likes: it keeps its port and its data until ``stop()``.
    """

    def __init__(
        self, engine: str, options: Sequence[str] = (), within: Path | None = None
    ) -> None:
        self.engine = engine
        self.host = HOST
        self.port = free_port()
        self.user = USER
        self.password = PASSWORD
        self.version = ""
        #: The server's process while it runs.
        self.pid: int | None = None
        self._program = engine_folder(engine) / "server"
        self._options = tuple(options)
        self._folder = _new_folder(within)
        self.datadir = self._folder / "data"
        self.socket = str(self._folder / "socket")
        self.error_log = self._folder / "error.log"
        self._guard = _Guard(self._folder, self.error_log)
        self._owner = os.getpid()
        atexit.register(self._discard_at_exit)
        try:
            (self._folder / "tmp").mkdir()
            _new_datadir(engine, self.datadir)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{self.engine} {self.version} on {self.host}:{self.port}>"

    def start(self, options: Sequence[str] = ()) -> None:
        """Start the server, or start it again, and wait until it answers.

        ``options`` are for this once.
        """
        if not self._folder.exists():
            raise ServerError(f"{self!r} was stopped and its data removed")
        if self.pid is not None:
            raise ServerError(f"{self!r} is running")
        for name in ("socket", "socket.lock", "pid"):
            (self._folder / name).unlink(missing_ok=True)  # of a server that was killed
        log_start = self.error_log.stat().st_size if self.error_log.exists() else 0
        self.pid = self._guard.start([str(self._program), *self._arguments(), *options])
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            status = self._guard.exit_status(0.02)
            if status is not None:
                self.pid = None
                self._raise_start_error(f"ended with status {status}", log_start)
            try:
                # Over the local socket, which is up when the port is: the user's first log-in
                # over TCP is left to the test, since MySQL remembers it and does the next by a
                # shorter way.
                with self.connect_as_root(connect_timeout=5, read_timeout=5) as connection:
                    self.version = _one_value(connection, "SELECT VERSION()")
                return
            except pymysql.Error:
                if time.monotonic() > deadline:
                    self.kill()
                    self._raise_start_error(f"did not answer in {START_TIMEOUT:.0f} s", log_start)

    def run(self, option: str) -> str:
        """Have the program do what it does at once and then ends, such as to look at its data.

        Gives what it logs.
        """
        if self.pid is not None:
            raise ServerError(f"{self!r} is running")
        log = self._folder / "run.log"
        log.unlink(missing_ok=True)
        command = [str(self._program), *self._arguments(), option, f"--log-error={log}"]
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=START_TIMEOUT
        ).returncode
        said = log.read_text(errors="replace") if log.exists() else ""
        if status != 0:
            raise ServerError(f"{option} ended with status {status}; its log:\n{_last_lines(said)}")
        return said

    def stop(self) -> None:
        """End the server in order and remove its data."""
        try:
            if self.pid is not None:
                self.terminate()
        finally:
            self.discard()

    def discard(self) -> None:
        """End the server at once, whatever it is at, and remove its data."""
        atexit.unregister(self._discard_at_exit)
        self._guard.close()
        self.pid = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def terminate(self) -> None:
        """Shut the server down in order (SIGTERM); it can be started again."""
        self.signal(signal.SIGTERM)
        if self._guard.exit_status(STOP_TIMEOUT) is None:
            self.kill()
        self.pid = None

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); it can be started again."""
        self.signal(signal.SIGKILL)
        if self._guard.exit_status(STOP_TIMEOUT) is None:
            raise ServerError(f"{self!r} survived SIGKILL")
        self.pid = None

    def signal(self, number: int) -> None:
        """Send the server a signal: SIGSTOP makes it hang, SIGCONT go on."""
        if self.pid is None:
            raise ServerError(f"{self!r} is not running")
        self._guard.signal(number)

    def create_database(self, name: str | None = None) -> str:
        """Make an empty database that ``user`` may use; an existing one is replaced."""
        if name is None:
            name = f"dalga_{secrets.token_hex(4)}"
        self.drop_database(name)
        pattern = name.replace("_", r"\_")  # in a grant, _ stands for any character
        with self.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}`")
            cursor.execute(f"GRANT ALL PRIVILEGES ON `{pattern}`.* TO '{USER}'@'{HOST}'")
        return name

    def create_accounts(self, names: Sequence[str], database: str) -> None:
        """Let others log in as ``user`` does, and use a database as ``user`` may."""
        accounts = [f"'{name}'@'{HOST}'" for name in names]
        identified = ", ".join(f"{one} IDENTIFIED BY '{PASSWORD}'" for one in accounts)
        pattern = database.replace("_", r"\_")
        with self.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE USER IF NOT EXISTS {identified}")
            cursor.execute(f"GRANT ALL PRIVILEGES ON `{pattern}`.* TO {', '.join(accounts)}")

    def drop_database(self, name: str) -> None:
        """Remove a database if it is there, and whoever is still logged in to it."""
        with self.connect_as_root() as connection, connection.cursor() as cursor:
            # A transaction that somebody left open would hold the next statement up for ever.
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", name)
            for (session,) in cursor.fetchall():
                with contextlib.suppress(pymysql.Error):  # it may have left meanwhile
                    cursor.execute("KILL %s", session)
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def connect(self, **options: Any) -> Connection[Any]:
        """Log in over TCP as the user that Dalga would be; options are PyMySQL's."""
        account = {"user": self.user, "password": self.password}
        return pymysql.connect(**{"host": self.host, "port": self.port, **account, **options})

    def connect_as_root(self, **options: Any) -> Connection[Any]:
        """Log in as the administrator, over the server's local socket."""
        return pymysql.connect(unix_socket=self.socket, user="root", **options)

    def _arguments(self) -> list[str]:
        return [
            f"--datadir={self.datadir}",
            f"--tmpdir={self._folder}/tmp",
            f"--socket={self.socket}",
            f"--pid-file={self._folder}/pid",
            f"--log-error={self.error_log}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--max-connections=400",
            *_as_root(),
            *OPTIONS[self.engine],
            *self._options,
        ]

    def _raise_start_error(self, what: str, log_start: int) -> None:
        log = ""
        if self.error_log.exists():
            log = self.error_log.read_bytes()[log_start:].decode(errors="replace")
        kind = _PortTaken if "Bind on TCP/IP port" in log else ServerError
        raise kind(f"{self.engine} on port {self.port} {what}; its log ends:\n{_last_lines(log)}")

    def _discard_at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a process forked from the tests'
            self.discard()


class _Guard:
    """Our end of ``guard.py``, which says what it does and why."""

    def __init__(self, folder: Path, log: Path) -> None:
        here = Path(__file__).parent
        self._lock = threading.Lock()
        self._said = b""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(here / "guard.py"), str(folder), str(log)],
            # Where Galera finds wsrep_sst_copy.
            env={**os.environ, "PATH": f"{here}:{os.environ.get('PATH', os.defpath)}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Out of the terminal's reach: Ctrl-C is for the tests, which then end the servers.
            start_new_session=True,
        )

    def start(self, command: list[str]) -> int:
        self._order(start=command)
        said = self._next_line(START_TIMEOUT)
        if said is None:
            raise ServerError("the server's guard does not answer")
        return int(said.removeprefix("pid "))

    def signal(self, number: int) -> None:
        self._order(signal=int(number))

    def exit_status(self, timeout: float) -> int | None:
        """Wait for the server's end; None if it still runs."""
        said = self._next_line(timeout)
        return None if said is None else int(said.removeprefix("exit "))

    def close(self) -> None:
        """Have the guard clear up, and wait until it has."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        self._process.wait()
        stdout.close()

    def _order(self, **order: object) -> None:
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(f"{json.dumps(order)}\n".encode())
        except BrokenPipeError as error:
            raise ServerError("the server's guard has died") from error

    def _next_line(self, timeout: float) -> str | None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        poll = select.poll()  # unlike select(), it takes descriptors above 1023
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._said:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            some = os.read(descriptor, 4096)
            if not some:
                raise ServerError("the server's guard has died")
            self._said += some
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


def engine_folder(engine: str) -> Path:
    """Where the unpacked engine is, or Prometheus, or Chromium."""
    if engine not in (*ENGINES, "prometheus", "chromium"):
        raise ServerError(f"{engine!r} is not one of the engines {', '.join(ENGINES)}")
    folder = Path(os.environ.get("DALGA_ENGINES_DIR") or CHECKOUT / ".cache").absolute() / engine
    if not (folder / "server").exists():
        raise ServerError(
            f"there is no {engine} in {folder}; to fetch it:"
            f" python3 tests/servers/fetch.py {engine} {folder}"
        )
    return folder


def _new_folder(within: Path | None = None) -> Path:
    """A temporary folder whose path leaves room for a socket's name."""
    folder = tempfile.mkdtemp(prefix="dalga-server-", dir=within)
    if len(folder) + len("/socket") > LONGEST_SOCKET_PATH:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="dalga-server-", dir="/tmp")
    return Path(folder)


#: Those that `free_port` gave out; some are not listened on as yet.
_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, nor is likely to take while the server is down for a test.

    So not one that the kernel hands out to outgoing connections: a client that keeps trying such a
    port while its server is down can even be connected to itself.
    """
    first_outgoing = 32768
    with contextlib.suppress(OSError):
        ports = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first_outgoing = int(ports.split()[0])
    # Not the tests' own generator, which a test may have seeded.
    chance = random.SystemRandom()
    for _ in range(100):
        port = chance.randrange(10000, first_outgoing) if first_outgoing > 12000 else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            port = int(probe.getsockname()[1])
            if port not in _ports:
                _ports.add(port)
                return port
    raise ServerError("no free port was found")


def _new_datadir(engine: str, datadir: Path) -> None:
    """Make an initialised data directory, by copying one made earlier where there is one.

    Initialising takes seconds, copying tenths. The pattern stays in the engine's folder, so that a
    newly fetched engine makes its own.
    """
    folder = engine_folder(engine)
    pattern = folder / "template"
    if not os.access(folder, os.W_OK) and not os.access(pattern, os.R_OK | os.X_OK):
        _initialise(engine, datadir)
        return
    if not pattern.exists():
        with open(folder / "template.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not pattern.exists():
                fresh = folder / "template.new"
                shutil.rmtree(fresh, ignore_errors=True)  # of a process that was interrupted
                _initialise(engine, fresh)
                fresh.rename(pattern)
    subprocess.run(["cp", "-a", "--reflink=auto", str(pattern), str(datadir)], check=True)


def _initialise(engine: str, datadir: Path) -> None:
    """Make a data directory with the system tables and our user."""
    datadir.mkdir()
    with tempfile.TemporaryDirectory(prefix="dalga-init-") as scratch:
        sql = Path(scratch) / "init.sql"
        arguments = [f"--datadir={datadir}", f"--tmpdir={scratch}", *_as_root()]
        if engine == "mysql":
            sql.write_text(CREATE_USER)
            arguments += ["--initialize-insecure", f"--init-file={sql}"]
        else:
            sql.write_text(_mariadb_system_tables())
            arguments += ["--bootstrap", "--log-warnings=0"]
        arguments += OPTIONS[engine]
        with open(sql if engine == "mariadb" else os.devnull) as stdin:
            done = subprocess.run(
                [str(engine_folder(engine) / "server"), *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
    if done.returncode != 0:
        shutil.rmtree(datadir, ignore_errors=True)
        raise ServerError(f"{engine} could not make its tables:\n{_last_lines(done.stdout)}")
    # The server's identity, which each copy makes anew.
    (datadir / "auto.cnf").unlink(missing_ok=True)


def _mariadb_system_tables() -> str:
    """What mariadb-install-db does, without the documentation's tables."""
    parts = ["CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"]
    share = engine_folder("mariadb") / "usr" / "share"
    # Named mysql_*.sql up to MariaDB 10.11, mariadb_*.sql later.
    for name in ("system_tables", "performance_tables", "system_tables_data", "sys_schema"):
        found = sorted(share.glob(f"*/m*_{name}.sql"))
        if not found:
            raise ServerError(f"this MariaDB has no {name}.sql in {share}")
        parts.append(found[0].read_text(encoding="utf-8"))
    # As in MySQL, root is for the local socket alone.
    parts.append("\nDELETE FROM mysql.global_priv WHERE Host <> 'localhost';\n")
    parts.append("DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';\n")
    parts.append(f"FLUSH PRIVILEGES;\n{CREATE_USER}")
    return "".join(parts)


def _as_root() -> list[str]:
    """The engines refuse to run as root unless told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _one_value(connection: Connection[Any], query: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(query)
        (value,) = cursor.fetchone()
    return str(value)


def _last_lines(text: str, count: int = 15) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-count:]) or "  (nothing)"
