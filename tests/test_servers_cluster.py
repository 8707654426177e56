"""The clusters that other tests rely on: what one server commits the others have, or get."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql
from pymysql.constants import ER
from twisted.trial.unittest import SkipTest, TestCase

from tests.run import asked_for
from tests.servers import Replicated, Server
from tests.stores import cluster


def skip_unless_asked_for(engine: str) -> None:
    if engine not in asked_for(os.environ):
        raise SkipTest(f"DALGA_TEST_ENGINES does not name {engine}")


def execute(server: Server, database: str, *statements: str) -> Sequence[Any]:
    """Execute statements and commit; gives what the last one found."""
    with closing(server.connect(database=database)) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        connection.commit()
        rows: Sequence[Any] = cursor.fetchall()
        return rows


CREATE = "CREATE TABLE kept (number INT PRIMARY KEY, seen INT DEFAULT 0) ENGINE=InnoDB"
COUNT = "SELECT COUNT(*) FROM kept"


class MariaDBClusterTests(TestCase):
    """Galera."""

    timeout = 120

    def setUp(self) -> None:
        skip_unless_asked_for("mariadb")
        self.cluster = cluster()
        self.database = self.cluster.create_database()
        self.addCleanup(self.cluster.servers[0].drop_database, self.database)
        self.execute(0, CREATE, "INSERT INTO kept (number) VALUES (1)")

    def execute(self, node: int, *statements: str) -> Sequence[Any]:
        return execute(self.cluster.servers[node], self.database, *statements)

    def test_what_one_has_all_have(self) -> None:
        self.execute(1, "SET SESSION wsrep_sync_wait = 7", "INSERT INTO kept (number) VALUES (2)")
        self.cluster.wait_until_applied()
        for node in range(3):
            self.assertEqual(self.execute(node, COUNT), ((2,),))

    def test_killed_node_rejoins_with_what_it_has_missed(self) -> None:
        node = self.cluster.servers[2]
        node.kill()
        self.cluster.wait_until_synced()
        self.execute(0, "INSERT INTO kept (number) VALUES (2), (3)")
        self.cluster.rejoin(node)
        self.assertEqual(self.execute(2, COUNT), ((3,),))
        self.execute(2, "INSERT INTO kept (number) VALUES (4)")
        self.cluster.wait_until_applied()
        self.assertEqual(self.execute(0, COUNT), ((4,),))

    def test_conflict_is_resolved_at_commit(self) -> None:
        """Of two that write the same row on two nodes, the second to commit gets error 1213."""
        self.cluster.wait_until_applied()
        first, second = (node.connect(database=self.database) for node in self.cluster.servers[:2])
        with closing(first), closing(second):
            first.cursor().execute("UPDATE kept SET seen = 1")
            second.cursor().execute("UPDATE kept SET seen = 2")
            first.commit()
            error = self.assertRaises(pymysql.MySQLError, second.commit)
        self.assertEqual(error.args[0], ER.LOCK_DEADLOCK)
        self.cluster.wait_until_applied()
        self.assertEqual(self.execute(1, "SELECT seen FROM kept"), ((1,),))


# For mypy, a mixin has what it is mixed into; for trial, it is no test case.
if TYPE_CHECKING:
    Mixin = TestCase
else:
    Mixin = object


class ReplicatedTests(Mixin):
    """Not tests by themselves: trial runs them in the classes that name an engine."""

    engine: ClassVar[str]

    def setUp(self) -> None:
        skip_unless_asked_for(self.engine)

    def test_replica_follows_and_is_promoted(self) -> None:
        with Replicated(self.engine) as pair:
            database = pair.primary.create_database()
            execute(pair.primary, database, CREATE)
            # Nothing is acknowledged that the replica does not have.
            pair.replica.signal(signal.SIGSTOP)
            with closing(pair.primary.connect(database=database, read_timeout=1)) as connection:
                connection.cursor().execute("INSERT INTO kept (number) VALUES (100)")
                self.assertRaises(pymysql.OperationalError, connection.commit)
            pair.replica.signal(signal.SIGCONT)
            for number in range(100):
                execute(pair.primary, database, f"INSERT INTO kept (number) VALUES ({number})")
            pair.primary.kill()
            refused = self.assertRaises(
                pymysql.MySQLError, execute, pair.replica, database, "DELETE FROM kept"
            )
            self.assertEqual(refused.args[0], ER.OPTION_PREVENTS_STATEMENT)
            new = pair.promote()
            self.assertIs(new, pair.replica)
            # All that was acknowledged, to the last.
            self.assertEqual(execute(new, database, COUNT), ((101,),))
            execute(new, database, "DELETE FROM kept")
            self.assertEqual(execute(new, database, COUNT), ((0,),))


class MariaDBReplicatedTests(ReplicatedTests, TestCase):
    engine = "mariadb"


class MySQLReplicatedTests(ReplicatedTests, TestCase):
    engine = "mysql"
