"""
What a session with MySQL or MariaDB is set to, whatever the server's configuration, its
``init_connect`` or the account has made of it: our statements have to mean the same everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import pymysql
from pymysql.constants import CR

from dalga.store.dialect import Cursor

#: No limit, as both engines write it.
_NO_LIMIT = 2**64 - 1

#: What both engines have, and let every user set. Settings on how text compares and on how values
#: are shown are left out: keys are bytes, and no statement of ours depends on either.
_SETTINGS: dict[str, object] = {
    "time_zone": "'+00:00'",
    "sql_mode": "'STRICT_ALL_TABLES'",
    # A stopped clock, as some set it for tests.
    "timestamp": "DEFAULT",
    # 1 refuses an UPDATE or DELETE that uses no index (1175), such as that of old signs of life.
    "sql_safe_updates": 0,
    # A limit ends each list early, without an error.
    "sql_select_limit": _NO_LIMIT,
    # 0 refuses to look at more rows than max_join_size (1104).
    "sql_big_selects": 1,
    # 0 lets InnoDB take a key that is there already for a new one, and MariaDB lock a table.
    "unique_checks": 1,
    # CHAIN begins a transaction with each COMMIT, and RELEASE ends the session with it.
    "completion_type": "'NO_CHAIN'",
    # PyMySQL sets it only where it is on at the log-in, and the server's init_connect comes later.
    "autocommit": 0,
}


#: Seconds that a session may idle within a transaction, its rows locked, while its daemon is frozen
#: or the way to that is cut (P5).
IDLE_TRANSACTION = 10

#: The same for MySQL, which has a limit for idle sessions alone, in a transaction or not. It is
#: longer, as it also ends connections that wait in the pool; these are made anew when needed.
IDLE = 60

#: MariaDB has the first two, in seconds; MySQL the last, in milliseconds; and both the third.
_LIMITS = ("max_statement_time", "idle_transaction_timeout", "wait_timeout", "max_execution_time")
_ISOLATION = ("tx_isolation", "transaction_isolation")


class Limits(NamedTuple):
    """How long a statement may take, in seconds; its answer is given up here after that."""

    #: The wait for a lock of a row, and for one of a table or of the server.
    lock: int
    #: In all, where the server has a limit for that; longer than the wait for a lock.
    statement: float


def set_up(cursor: Cursor, limits: Limits) -> None:
    """
    Make a new session ready.

    :param limits: what the server ends by itself, so that no session waits there that was given up.
    :raises pymysql.OperationalError: if it can't be.
    """
    settings = {
        **_SETTINGS,
        "innodb_lock_wait_timeout": limits.lock,
        # Behind LOCK TABLES, FLUSH TABLES WITH READ LOCK and ALTER TABLE; a year by default.
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
        # until all is here that was acknowledged by any node: or a DELETE might find nothing of a
        # job that was PUT through another one (P4).
        cursor.execute("SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1")
    levels = {found[name] for name in _ISOLATION if name in found}
    if levels != {"READ-COMMITTED"}:
        raise pymysql.OperationalError(
            CR.CR_SERVER_HANDSHAKE_ERR,
            "it does not let a session read committed data only "
            f"(transaction isolation is {', '.join(sorted(levels)) or 'unknown'})",
        )


def unlimit(cursor: Cursor) -> None:
    """For statements that may take their time: the server's own limits."""
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
    """Those of the session's variables that the engine has, with their values."""
    wanted = ", ".join(f"'{name}'" for name in names)
    cursor.execute(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({wanted})")
    return dict(cursor.fetchall())
