"""
The variables of a session with MySQL or MariaDB. The server's configuration, its ``init_connect``
or the account may have set them. Here they are set so that our statements mean the same everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import pymysql
from pymysql.constants import CR

from dalga.store.dialect import Cursor

#: No limit, as both engines write it.
_NO_LIMIT = 2**64 - 1

#: Variables that both engines have, and that every user may set. How text compares and how values
#: are shown is not set: keys are bytes, and no statement of ours depends on either.
_SETTINGS: dict[str, object] = {
    "time_zone": "'+00:00'",
    "sql_mode": "'STRICT_ALL_TABLES'",
    # Another value stops the session's clock. Some servers have it set for tests.
    "timestamp": "DEFAULT",
    # 1 refuses an UPDATE or DELETE that uses no index (1175), as the removal of old heartbeats.
    "sql_safe_updates": 0,
    # A limit ends each list early, without an error.
    "sql_select_limit": _NO_LIMIT,
    # 0 refuses to look at more rows than max_join_size (1104).
    "sql_big_selects": 1,
    # With 0, InnoDB may take a key that is there for a new one, and MariaDB may lock a table.
    "unique_checks": 1,
    # CHAIN begins a transaction with each COMMIT, and RELEASE ends the session with it.
    "completion_type": "'NO_CHAIN'",
    # PyMySQL sets it only if it is on at the log-in. The server's init_connect comes later.
    "autocommit": 0,
}


#: MariaDB ends a session that idles this long (seconds) within a transaction. Its daemon may be
#: frozen, or cut off, and its locks would hold up other instances (P5).
IDLE_TRANSACTION = 10

#: MySQL ends a session that idles this long (seconds), in a transaction or not: it has no limit for
#: transactions alone. The limit also ends connections that wait in the pool, so it is longer. These
#: are made anew when they are needed.
IDLE = 60

#: The variables of the limits. MariaDB has the first two (seconds), MySQL the last (milliseconds),
#: and both have wait_timeout (seconds).
_LIMITS = ("max_statement_time", "idle_transaction_timeout", "wait_timeout", "max_execution_time")
_ISOLATION = ("tx_isolation", "transaction_isolation")


class Limits(NamedTuple):
    """
    After these times (seconds) the server ends a statement by itself. Both come before the daemon
    gives the answer up.
    """

    #: The wait for one lock: of a row, of a table, or of the server.
    lock: int
    #: The whole statement, if the server has a limit for that. Longer than the wait for a lock.
    statement: float


def set_up(cursor: Cursor, limits: Limits) -> None:
    """
    Make a new session ready.

    :param limits: set in the session, so that no session that was given up waits on the server.
    :raises pymysql.OperationalError: if the session can't be set up.
    """
    settings = {
        **_SETTINGS,
        "innodb_lock_wait_timeout": limits.lock,
        # The wait behind LOCK TABLES, FLUSH TABLES WITH READ LOCK and ALTER TABLE; by default a
        # year.
        "lock_wait_timeout": limits.lock,
    }
    cursor.execute(
        "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
    )
    # An administrator may have made READ ONLY the default, which refuses each of our writes.
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
    # Until 11.1, MariaDB has the first name only; MySQL 8 has the second only.
    found = _variables(cursor, (*_ISOLATION, *_LIMITS, "wsrep_on"))
    _limit(cursor, found, limits)
    if found.get("wsrep_on") == "ON":
        # A node of a Galera cluster. A transaction's first statement, which reads the time, waits
        # until this node has all that any node has acknowledged. Else a DELETE might not find a job
        # that was PUT through another node (P4).
        cursor.execute("SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1")
    levels = {found[name] for name in _ISOLATION if name in found}
    if levels != {"READ-COMMITTED"}:
        raise pymysql.OperationalError(
            CR.CR_SERVER_HANDSHAKE_ERR,
            "it does not let a session read committed data only "
            f"(transaction isolation is {', '.join(sorted(levels)) or 'unknown'})",
        )


def unlimit(cursor: Cursor) -> None:
    """Set the server's own limits, for statements that may take their time."""
    names = _variables(cursor, _LIMITS)
    cursor.execute("SET " + ", ".join(f"SESSION {name} = DEFAULT" for name in names))


def _limit(cursor: Cursor, found: dict[str, str], limits: Limits) -> None:
    """Set the limits that the engine has, unless the server's own are stricter."""
    most: dict[str, float]
    most = {"max_statement_time": limits.statement, "idle_transaction_timeout": IDLE_TRANSACTION}
    if not most.keys() & found.keys():
        most = {"max_execution_time": int(1000 * limits.statement), "wait_timeout": IDLE}
    settings = [
        f"SESSION {name} = {value}"
        for name, value in most.items()
        if name in found and not 0 < float(found[name]) <= value
    ]
    if settings:
        cursor.execute(f"SET {', '.join(settings)}")


def _variables(cursor: Cursor, names: tuple[str, ...]) -> dict[str, str]:
    """The values of the session's variables of these names, as far as the engine has them."""
    wanted = ", ".join(f"'{name}'" for name in names)
    cursor.execute(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({wanted})")
    return dict(cursor.fetchall())
