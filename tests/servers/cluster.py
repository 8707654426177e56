"""Servers that belong together: a Galera cluster, and a primary with its replica."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Any, NamedTuple

from pymysql.cursors import DictCursor

from tests.servers.server import (
    HOST,
    PASSWORD,
    START_TIMEOUT,
    Server,
    ServerError,
    engine_folder,
    free_port,
)

LIBRARY = "usr/lib/galera/libgalera_smm.so"

#: What of the others' writes a node may have missed that does not need a full copy.
CACHE = "64M"
#: Seconds without a word until the others go on without a node. Galera's default is 5; much less
#: would exclude nodes of a busy machine that are well.
SUSPECTED_AFTER = 2

REPLICA = "replica"


class _Group:
    """Servers that end together."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def stop(self) -> None:
        """End all and remove their data."""
        for server in self.servers:
            server.discard()  # nobody will miss what an orderly end would save

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class Cluster(_Group):
    """Galera nodes on 127.0.0.1, synced when the constructor returns; `stop()` ends them.

    Each is a `Server` in `servers`, with an own port. A database and its grants, made on one, are
    on all. What a node has missed it takes from another's cache (IST), or, where that does not
    hold it any more, all of its data (SST, by ``wsrep_sst_copy``).
    """

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        library = engine_folder("mariadb") / LIBRARY
        if not library.exists():
            raise ServerError(
                f"there is no {library}; to fetch it:"
                f" python3 tests/servers/fetch.py mariadb {engine_folder('mariadb')}"
            )
        ports = [free_port() for _ in range(count)]
        members = ",".join(f"{HOST}:{port}" for port in ports)
        try:
            for number, port in enumerate(ports):
                provider = {
                    "gmcast.listen_addr": f"tcp://{HOST}:{port}",
                    "ist.recv_addr": f"{HOST}:{free_port()}",
                    "gcache.size": CACHE,
                    "evs.keepalive_period": "PT0.5S",
                    "evs.suspect_timeout": f"PT{SUSPECTED_AFTER}S",
                }
                options = (
                    "--wsrep-on=ON",
                    f"--wsrep-provider={library}",
                    f"--wsrep-cluster-address=gcomm://{members}",
                    f"--wsrep-node-address={HOST}:{port}",
                    f"--wsrep-node-name=node{number}",
                    "--wsrep-sst-method=copy",
                    f"--wsrep-provider-options={';'.join(map('='.join, provider.items()))}",
                    "--binlog-format=ROW",
                    "--innodb-autoinc-lock-mode=2",
                )
                self.servers.append(Server("mariadb", options))
            first, *others = self.servers
            first.start(["--wsrep-new-cluster"])
            for node in others:
                node.start()
            self.wait_until_synced()
        except BaseException:
            self.stop()
            raise

    def create_database(self) -> str:
        """Make an empty database that ``user`` may use, on all nodes."""
        name = self.servers[0].create_database()
        self.wait_until_applied()
        return name

    def rejoin(self, node: Server) -> None:
        """Start a node that was killed, and wait until it has what the others have."""
        logged = node.run("--wsrep-recover")
        found = re.findall(r"WSREP: Recovered position: (\S+)", logged)
        if not found:
            raise ServerError(f"{node!r} has no position in the cluster's history")
        node.start([f"--wsrep-start-position={found[-1]}"])
        self.wait_until_synced()

    def isolate(self, node: Server, isolated: bool = True) -> None:
        """Cut a node off from the others, or let it back: it runs on, but knows of no majority."""
        with closing(node.connect_as_root(autocommit=True)) as connection:
            connection.cursor().execute(
                "SET GLOBAL wsrep_provider_options = %s", f"gmcast.isolate={int(isolated)}"
            )

    def wait_until_synced(self, size: int | None = None) -> None:
        """Wait until all nodes that run are one primary component, and up to date.

        ``size`` is how many those are where some of them are isolated, which are left out.
        """
        running = [node for node in self.servers if node.pid is not None]
        expected = {
            "wsrep_cluster_size": str(size or len(running)),
            "wsrep_cluster_status": "Primary",
            "wsrep_local_state_comment": "Synced",
            "wsrep_ready": "ON",
        }

        def synced() -> bool:
            return sum(expected.items() <= self.status(node).items() for node in running) == (
                size or len(running)
            )

        _wait(synced, "the nodes are not synced")

    def wait_until_applied(self) -> None:
        """Wait until the nodes that run have, each of them, all that any of them has by now."""
        running = [node for node in self.servers if node.pid is not None]

        def position(node: Server) -> int:
            return int(self.status(node)["wsrep_last_committed"])

        last = max(map(position, running))
        _wait(lambda: all(position(node) >= last for node in running), "a node lags behind")

    def status(self, node: Server) -> dict[str, str]:
        """What a node says of itself and of the cluster: its ``wsrep_`` variables."""
        with closing(node.connect_as_root()) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep\\_%'")
            return dict(cursor.fetchall())


class _Sql(NamedTuple):
    """What an engine calls the things of replication."""

    #: Of both servers; then of each.
    options: Sequence[str]
    primary_options: Sequence[str]
    replica_options: Sequence[str]
    #: The replica's statements.
    follow: str
    start: str
    stop_receiving: str
    status: str
    forget: Sequence[str]
    #: A status variable of the primary: how many replicas it waits for.
    clients: str


# A commit waits for the replica before others see it, however long it takes.
_FOR_EVER = "3600000"
_SQL = {
    "mariadb": _Sql(
        ("--log-bin=binlog", "--log-slave-updates", "--binlog-format=ROW"),
        (
            "--rpl-semi-sync-master-enabled=ON",
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            f"--rpl-semi-sync-master-timeout={_FOR_EVER}",
        ),
        ("--rpl-semi-sync-slave-enabled=ON", "--read-only=ON"),
        f"CHANGE MASTER TO MASTER_HOST='{HOST}', MASTER_PORT=%s, MASTER_USER='{REPLICA}',"
        f" MASTER_PASSWORD='{PASSWORD}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
        "START SLAVE",
        "STOP SLAVE IO_THREAD",
        "SHOW SLAVE STATUS",
        ("STOP SLAVE", "RESET SLAVE ALL"),
        "Rpl_semi_sync_master_clients",
    ),
    "mysql": _Sql(
        ("--gtid-mode=ON", "--enforce-gtid-consistency=ON"),
        (
            "--plugin-load-add=semisync_source.so",
            "--rpl-semi-sync-source-enabled=ON",
            f"--rpl-semi-sync-source-timeout={_FOR_EVER}",
        ),
        (
            "--plugin-load-add=semisync_replica.so",
            "--rpl-semi-sync-replica-enabled=ON",
            "--read-only=ON",
        ),
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{HOST}', SOURCE_PORT=%s,"
        f" SOURCE_USER='{REPLICA}', SOURCE_PASSWORD='{PASSWORD}', SOURCE_CONNECT_RETRY=1,"
        " SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
        "START REPLICA",
        "STOP REPLICA IO_THREAD",
        "SHOW REPLICA STATUS",
        ("STOP REPLICA", "RESET REPLICA ALL"),
        "Rpl_semi_sync_source_clients",
    ),
}


class Replicated(_Group):
    """A primary and its replica, which follows when the constructor returns.

    Semi-synchronous: what the primary has acknowledged has reached the replica, which only reads.
    """

    def __init__(self, engine: str) -> None:
        super().__init__()
        self._sql = sql = _SQL[engine]
        try:
            for number, own in enumerate((sql.primary_options, sql.replica_options), start=1):
                options = (f"--server-id={number}", *sql.options, *own)
                self.servers.append(Server(engine, options))
            self.primary, self.replica = self.servers
            with ThreadPoolExecutor() as pool:
                list(pool.map(Server.start, self.servers))
            _execute(
                self.primary,
                # Or it would wait for a replica that can't log in yet.
                "SET SESSION sql_log_bin = 0",
                f"CREATE USER '{REPLICA}'@'{HOST}' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT REPLICATION SLAVE ON *.* TO '{REPLICA}'@'{HOST}'",
            )
            _execute(self.replica, sql.follow % self.primary.port, sql.start)
            _wait(self._follows, "the replica does not follow")
        except BaseException:
            self.stop()
            raise

    def promote(self) -> Server:
        """Make the replica the primary, with all that it has received; gives it.

        The old primary is to be killed before: two that both take writes are none of the promises'
        business.
        """
        _execute(self.replica, self._sql.stop_receiving)
        _wait(self._has_applied, "the replica does not apply what it has received")
        _execute(self.replica, *self._sql.forget, "SET GLOBAL read_only = 0")
        self.primary = self.replica
        return self.primary

    def _follows(self) -> bool:
        with closing(self.primary.connect_as_root()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"SHOW GLOBAL STATUS LIKE '{self._sql.clients}'")
            return bool(cursor.fetchall() == ((self._sql.clients, "1"),))

    def _has_applied(self) -> bool:
        with closing(self.replica.connect_as_root(cursorclass=DictCursor)) as connection:
            cursor = connection.cursor()
            cursor.execute(self._sql.status)
            (status,) = cursor.fetchall()
            if self.replica.engine == "mysql":
                # Its workers may still be at it when the thread that feeds them has read all.
                cursor.execute(
                    "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed) AS applied",
                    status["Retrieved_Gtid_Set"],
                )
                (found,) = cursor.fetchall()
                return bool(found["applied"])
            # Not by positions, which count a transaction that came but half.
            return "has read all relay log" in status["Slave_SQL_Running_State"]


def _execute(server: Server, *statements: str) -> None:
    """As root, one after the other."""
    with closing(server.connect_as_root(autocommit=True)) as connection:
        for statement in statements:
            connection.cursor().execute(statement)


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is so. :raises ServerError: if it takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"{otherwise}, after {START_TIMEOUT:.0f} s")
        time.sleep(0.02)
