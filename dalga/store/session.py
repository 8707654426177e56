"""
What a session with MySQL or MariaDB is set to, whatever the server's configuration, its
``init_connect`` or the account has made of it: our statements have to mean the same everywhere.
"""

from __future__ import annotations

import pymysql
from pymysql.constants import CR

from dalga.store.dialect import Cursor

#: No limit, as both engines write it.
_NO_LIMIT = 2**64 - 1

#: What both engines have, and let every user set. Not among them, as no statement of ours goes by
#: it: what is about how text compares (keys are bytes), and how values are shown.
_SETTINGS: dict[str, object] = {
    "time_zone": "'+00:00'",
    "sql_mode": "'STRICT_ALL_TABLES'",
    # A stopped clock, as some set it for tests.
    "timestamp": "DEFAULT",
    # 1 refuses changes that go by no index (1175), such as that of old signs of life.
    "sql_safe_updates": 0,
    # A limit ends each list early, without an error.
    "sql_select_limit": _NO_LIMIT,
    # 0 refuses to look at more rows than max_join_size (1104).
    "sql_big_selects": 1,
    # 0 lets InnoDB take a key that is there already for a new one, and MariaDB lock a table.
    "unique_checks": 1,
    # CHAIN begins a transaction with each COMMIT, and RELEASE ends the session with it.
    "completion_type": "'NO_CHAIN'",
    # PyMySQL looks at what the server says before its init_connect.
    "autocommit": 0,
}


def set_up(cursor: Cursor, lock_wait: int) -> None:
    """
    Make a new session ready.

    :param lock_wait: how long a statement waits for a row that is locked, in seconds.
    :raises pymysql.OperationalError: if it can't be.
    """
    settings = {**_SETTINGS, "innodb_lock_wait_timeout": lock_wait}
    cursor.execute(
        "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
    )
    # What can't be done in a transaction that only reads is all that we do.
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
    # MariaDB had but the one name until 11.1, MySQL 8 has but the other.
    cursor.execute(
        "SHOW SESSION VARIABLES WHERE Variable_name IN "
        "('tx_isolation', 'transaction_isolation', 'wsrep_on')"
    )
    found = dict(cursor.fetchall())
    if found.pop("wsrep_on", "OFF") == "ON":
        # A node of a Galera cluster. A transaction's first statement, which reads the time, waits
        # until all is here that was acknowledged by any node: or a DELETE might find nothing of a
        # job that was PUT through another one (P4).
        cursor.execute("SET SESSION wsrep_sync_wait = @@SESSION.wsrep_sync_wait | 1")
    levels = set(found.values())
    if levels != {"READ-COMMITTED"}:
        raise pymysql.OperationalError(
            CR.CR_SERVER_HANDSHAKE_ERR,
            "it does not let a session read committed data only "
            f"(transaction isolation is {', '.join(sorted(levels)) or 'unknown'})",
        )
