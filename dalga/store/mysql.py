"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import hashlib
import math
import re
import socket
import ssl
import struct
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any

import pymysql
from pymysql.constants import CLIENT, CR, ER, FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import SSCursor

from dalga.errors import StartupError, TableExists
from dalga.model.address import as_in_url
from dalga.model.delivery import MAX_PAYLOAD
from dalga.store import login
from dalga.store.dial import Dialer
from dalga.store.dialect import (
    BY_ID,
    OWN,
    CopyingDialect,
    Cursor,
    RecordValues,
    SharedValues,
    Trouble,
    as_instant,
    instant_text,
)
from dalga.store.mysqltls import ANY_CERTIFICATE, tls_failure
from dalga.store.parameters import Statement, in_parts
from dalga.store.places import Places, Session
from dalga.store.schema import (
    BACKUP,
    HEARTBEATS,
    RUNS,
    VERSION,
    columns_of,
    definitions,
    go_release,
    lacking,
    misfit,
    version_of,
)
from dalga.store.session import Limits, set_up, unlimit

#: A statement waits this long (seconds) for a lock, or less if the time-out of reads is shorter.
LOCK_WAIT_TIMEOUT = 3

#: A statement of an upgrade waits this long (seconds) for a lock. Another session's open
#: transaction may hold it.
UPGRADE_LOCK_WAIT = 5

#: A statement of an upgrade, such as the removal of a large table, may take this long (seconds).
UPGRADE_TIMEOUT = 600

UPGRADE = "dalga --config FILE --upgrade-table"

#: How to name another table.
ANOTHER = "name another with table in [mysql]"

#: No statement of ours is longer, in bytes, but for one with a payload: 500 ends of runs, each with
#: 255 characters of an error.
LONGEST_STATEMENT = 2**20

#: The rest of a statement with a payload, in bytes: the job's key, and its other details.
BESIDE_PAYLOAD = 2**17

#: Locked accounts: MariaDB's error, MySQL's, and MySQL's after too many failed logins.
_LOCKED_OUT = {4151, 3118, 3955}

#: What a user may not do, as the first of an error's arguments.
_NO_RIGHT = {(ER.TABLEACCESS_DENIED_ERROR,), (ER.COLUMNACCESS_DENIED_ERROR,)}

#: Errors by which the server says that it has rolled the transaction back, besides those whose
#: SQLSTATE says so (see `_rolled_back`). It can be run again, also where COMMIT gets one of them.
_ROLLED_BACK = {
    ER.LOCK_DEADLOCK,  # also what Galera says of a transaction that does not certify
    ER.CHECKREAD,
    3101,  # ER_TRANSACTION_ROLLBACK_DURING_COMMIT: Group Replication's certification
    # TiDB: https://docs.pingcap.com/tidb/stable/error-codes
    8002,  # a write conflict that TiDB can't resolve by itself
    8005,  # write conflict
    8022,  # the commit failed, and was rolled back
    8028,  # the schema was changed meanwhile
    9007,  # write conflict
}

#: SQLSTATE class 40 is "transaction rollback" (ISO/IEC 9075-2, table "SQLSTATE class and subclass
#: codes"), but for this one, "statement completion unknown".
_COMPLETION_UNKNOWN = "40003"

#: A proxy that has no number for a transaction that was rolled back says it in words: Vitess
#: ("transaction 1548: ended at ... (exceeded timeout: 30s)"), and some others in error 1105.
_ROLLED_BACK_WORDS = re.compile(
    r"transaction \d+: (ended at .*\(exceeded timeout|in use: for tx killer rollback)"
    r"|transaction (was|has been|is) (rolled back|aborted)",
    re.IGNORECASE,
)

_LOST = {
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    ER.SERVER_SHUTDOWN,
    ER.NORMAL_SHUTDOWN,
    1927,  # ER_CONNECTION_KILLED, MariaDB
    4031,  # ER_CLIENT_INTERACTION_TIMEOUT, MySQL: wait_timeout has passed
    ER.NO_SUCH_TABLE,  # a new connection says what has become of it
}

#: Errors that the same statement gets on a healthy server, too: a mistake in the statement, a table
#: that somebody has changed, a value that a column or a foreign trigger refuses. All other errors
#: mean that the database can't be used now: it is down, full or read-only, or a proxy says so by a
#: number of its own.
_MISTAKES = {
    # The statement
    ER.SYNTAX_ERROR,
    ER.PARSE_ERROR,
    ER.EMPTY_QUERY,
    ER.WRONG_ARGUMENTS,
    ER.WRONG_VALUE_COUNT,
    ER.WRONG_VALUE_COUNT_ON_ROW,
    ER.WRONG_NUMBER_OF_COLUMNS_IN_SELECT,
    ER.OPERAND_COLUMNS,
    ER.SUBQUERY_NO_1_ROW,
    ER.DERIVED_MUST_HAVE_ALIAS,
    ER.FIELD_SPECIFIED_TWICE,
    ER.UPDATE_TABLE_USED,
    ER.INVALID_GROUP_FUNC_USE,
    ER.WRONG_FIELD_WITH_GROUP,
    ER.NOT_SUPPORTED_YET,
    ER.CHECK_NOT_IMPLEMENTED,
    ER.FEATURE_DISABLED,
    ER.SP_DOES_NOT_EXIST,
    ER.FUNCTION_NOT_DEFINED,
    ER.UNKNOWN_SYSTEM_VARIABLE,
    ER.WRONG_VALUE_FOR_VAR,
    ER.CANT_AGGREGATE_2COLLATIONS,
    ER.CANT_AGGREGATE_NCOLLATIONS,
    # The table's shape
    ER.BAD_FIELD_ERROR,
    ER.NON_UNIQ_ERROR,
    ER.NONUNIQ_TABLE,
    ER.DUP_FIELDNAME,
    ER.UNKNOWN_TABLE,
    ER.WRONG_COLUMN_NAME,
    ER.KEY_COLUMN_DOES_NOT_EXITS,
    ER.KEY_DOES_NOT_EXITS,
    ER.ILLEGAL_REFERENCE,
    ER.NO_DEFAULT_FOR_FIELD,
    # A value
    ER.BAD_NULL_ERROR,
    ER.DUP_ENTRY,
    ER.DUP_UNIQUE,
    1586,  # ER_DUP_ENTRY_WITH_KEY_NAME
    ER.DATA_TOO_LONG,
    ER.WARN_DATA_OUT_OF_RANGE,
    ER.WARN_DATA_TRUNCATED,
    ER.TRUNCATED_WRONG_VALUE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    ER.WRONG_VALUE_FOR_TYPE,
    ER.ILLEGAL_VALUE_FOR_TYPE,
    ER.DATETIME_FUNCTION_OVERFLOW,
    ER.DIVISION_BY_ZERO,
    1690,  # ER_DATA_OUT_OF_RANGE
    ER.NO_REFERENCED_ROW,
    ER.NO_REFERENCED_ROW_2,
    ER.ROW_IS_REFERENCED,
    ER.ROW_IS_REFERENCED_2,
    3819,  # ER_CHECK_CONSTRAINT_VIOLATED, MySQL
    4025,  # ER_CONSTRAINT_FAILED, MariaDB
    1644,  # ER_SIGNAL_EXCEPTION: a trigger of somebody's refuses the row
}


#: The exceptions that PyMySQL raises over bytes that no server of MySQL's protocol would send.
_MISREAD = (
    ValueError,
    LookupError,
    NameError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
)


#: A host and a port, or the path of a local socket.
Server = tuple[str, int] | str


def longest_statement(max_payload: int) -> int:
    """
    How long a statement of ours is at most, in bytes.

    :param max_payload: how long a job's payload may be, in octets. The driver quotes a payload,
        which may make it twice as long.
    """
    return max(LONGEST_STATEMENT, 2 * max_payload + BESIDE_PAYLOAD)


class MySQL:
    """
    See `dalga.store.dialect.Dialect`.

    Each new connection goes to the first of several servers that takes writes, and no server is
    remembered. So a primary that somebody replaces by a replica is found without help. A sole
    server is used as it is.

    No caller waits for as long as the time-outs. A thread that waits for a silent server is free
    again after them.

    :param servers: where to look for the database, in this order: a host and a port, or the path
        of a local socket.
    :param dial_timeout: the limit (seconds) for the look-up of a server's name, and the limit for
        the server to take a connection.
    :param read_timeout: the limit (seconds) for an answer, at least 2: a lock wait and a slow fsync
        may come together.
    :param write_timeout: the limit (seconds) for the sending of a statement.
    :param encryption: see `dalga.store.mysqltls.tls`. Local sockets are not encrypted.
    :param places: where connections come from. By default there is one at a time.
    """

    engine = "mysql"
    module = "pymysql"
    by_id = " FORCE INDEX (PRIMARY)"
    by_key = " FORCE INDEX (job)"
    by_due = " FORCE INDEX (due)"
    by_state = " FORCE INDEX (state)"
    by_tag = " FORCE INDEX (PRIMARY)"
    by_tagged = " FORCE INDEX (id)"
    then_join = "STRAIGHT_JOIN"
    one_writer = False
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(
        self,
        servers: Sequence[Server],
        database: str,
        table: str,
        user: str,
        password: str,
        dial_timeout: float = 3.0,
        read_timeout: float = 10.0,
        write_timeout: float = 10.0,
        encryption: ssl.SSLContext | bool = True,
        places: Places | None = None,
        processes: int = 1,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        self._servers = tuple(servers)
        self._database = database
        self._name = table
        self._user = user
        self._password = password
        self._dial_timeout = dial_timeout
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._encryption = encryption
        # Whole seconds. The wait for a lock ends before the answer is given up: else the connection
        # would be taken for lost only because a row is locked.
        lock = max(1, min(LOCK_WAIT_TIMEOUT, math.ceil(read_timeout) - 1))
        # The whole statement ends before that, too, and later than a wait for a lock.
        self._limits = Limits(lock, max(read_timeout - 0.5, (lock + read_timeout) / 2))
        self._places = places or Places(1, spare=False)
        #: How many processes, each with as many places, there are for this user.
        self._processes = processes
        #: In bytes.
        self._longest = longest_statement(max_payload)
        self._dialer = Dialer()
        self.table = f"`{table}`"
        self.heartbeats = f"`{table}{HEARTBEATS}`"
        # The look into the table locks its definition until the transaction ends.
        self.now = f"""
            SELECT
                UTC_TIMESTAMP(6) AS now,
                EXISTS (SELECT 1 FROM {self.heartbeats}) AS has_instances
            """
        # The same look, without a row.
        self.same_version = f"NOT EXISTS (SELECT 1 FROM {self.heartbeats} WHERE id IS NULL)"
        #: Whether the start has found the tables to be as they have to be.
        self._knows = False

    def on_conflict(self, key: str) -> str:
        return "ON DUPLICATE KEY UPDATE"

    def proposed(self, column: str) -> str:
        return f"VALUES({column})"

    def prepare(self, sql: str) -> Statement:
        return Statement(sql, "%s")

    def connect(self) -> Any:
        return self._places.open(self._connect)

    def left(self, connection: Any) -> None:
        self._places.left(connection)

    def _connect(self, **other: Any) -> Session:
        """
        A session with the first server that can be used.

        :param other: arguments for PyMySQL that differ from the usual arguments.
        :raises pymysql.MySQLError: if no server can be used, with what each server said.
        """
        failures: list[tuple[Server, pymysql.MySQLError]] = []
        for server in self._servers:
            try:
                return self._connect_to(server, other)
            except pymysql.MySQLError as error:
                failures.append((server, error))
        if len(failures) == 1:
            raise failures[0][1]
        words = "; ".join(f"{_place(server)}: {_words(error)}" for server, error in failures)
        raise pymysql.OperationalError(CR.CR_CONNECTION_ERROR, words) from failures[0][1]

    def _connect_to(self, server: Server, other: dict[str, Any]) -> Session:
        """:raises pymysql.MySQLError: one that `trouble` knows, if the server can't be used."""
        arguments = {**self._arguments(), **self._address(server), **other}
        try:
            session = Session(self._log_in(arguments))
            self._make_ready(session)
            return session
        except pymysql.MySQLError as error:
            if words := tls_failure(error):
                raise pymysql.OperationalError(CR.CR_SSL_CONNECTION_ERROR, words) from error
            if isinstance(error, pymysql.InternalError) and not _has_number(error):
                raise _no_server() from error
            if error.args[:1] == (CR.CR_SERVER_LOST,) and "timed out" in str(error):
                silent = "it takes connections, but nothing comes from it within readTimeout"
                raise pymysql.OperationalError(CR.CR_SERVER_LOST, silent) from error
            if not _has_number(error) or self.trouble(error) is None:
                # A server that takes no connection of ours is no mistake of the program.
                words = _words(error) if _has_number(error) else str(error)
                raise pymysql.OperationalError(CR.CR_SERVER_HANDSHAKE_ERR, words) from error
            raise

    def _log_in(self, arguments: dict[str, Any]) -> Any:
        try:
            connection: Any = pymysql.connect(**arguments, defer_connect=True)
            if self._encryption is True:  # TLS is used if the server offers it
                connection._ssl_required = False
                connection.client_flag &= ~CLIENT.SSL
            connection.connect(self._dial(arguments))
            return connection
        except _MISREAD as error:
            if isinstance(error, UnicodeError) and not isinstance(error, UnicodeDecodeError):
                no_host = f"{arguments['host']!r} is no host name"
                raise pymysql.OperationalError(CR.CR_UNKNOWN_HOST, no_host) from error
            raise _no_server() from error
        except (RuntimeError, pymysql.OperationalError) as error:
            words = login.what_is_missing(error)
            if words is None:
                raise
            raise pymysql.OperationalError(CR.CR_AUTH_PLUGIN_CANNOT_LOAD, words) from error

    def _dial(self, arguments: dict[str, Any]) -> socket.socket | None:
        """
        A socket that is connected to a server, instead of PyMySQL's own, which would look the
        server's name up without a time limit. None for a local socket, which has no name.
        """
        if "unix_socket" in arguments:
            return None
        host, port = arguments["host"], arguments["port"]
        try:
            return self._dialer.dial(host, port, self._dial_timeout)
        except OSError as error:
            words = f"Can't connect to MySQL server on {host!r} ({error})"
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, words) from error

    def _make_ready(self, session: Session) -> None:
        try:
            self.set_up(session.connection)
            self._check_unchanged(session.connection.cursor())
            if len(self._servers) > 1 and _only_reads(session.connection.cursor()):
                raise pymysql.OperationalError(ER.OPTION_PREVENTS_STATEMENT, "it takes no writes")
        except BaseException:
            self._places.end(session)
            raise

    def _check_unchanged(self, cursor: Cursor) -> None:
        """:raises pymysql.OperationalError: if the tables are no longer those of the start."""
        if not self._knows:
            return
        try:
            self._check_version(cursor)
            if not self.columns(cursor, HEARTBEATS):
                raise StartupError(self._no_table(HEARTBEATS))
        except StartupError as error:
            raise pymysql.OperationalError(CR.CR_SERVER_HANDSHAKE_ERR, str(error)) from None

    def _arguments(self) -> dict[str, Any]:
        return {
            "user": self._user,
            # PyMySQL encodes text as Latin-1, and the server knows the password in UTF-8.
            "password": self._password.encode(),
            "database": self._database,
            "charset": "utf8mb4",
            "connect_timeout": self._dial_timeout,
            "read_timeout": self._read_timeout,
            "write_timeout": self._write_timeout,
            "auth_plugin_map": login.PLUGINS,
            "conv": {**conversions, FIELD_TYPE.DATETIME: _datetime},
            # Count the rows that matched, not the rows that were changed.
            "client_flag": CLIENT.FOUND_ROWS,
        }

    def _address(self, server: Server) -> dict[str, Any]:
        if isinstance(server, str):
            # PyMySQL's errors name the host.
            return {"unix_socket": server, "host": server, "ssl_disabled": True}
        host, port = server
        if self._encryption is False:
            return {"host": host, "port": port, "ssl_disabled": True}
        context = ANY_CERTIFICATE if self._encryption is True else self._encryption
        return {"host": host, "port": port, "ssl": context}

    def set_up(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            set_up(cursor, self._limits)

    def takes_payloads(self, longest: int) -> bool:
        return longest_statement(longest) <= self._longest

    def last_write(self) -> datetime | None:
        return None

    def begin(self, cursor: Cursor) -> None:
        """
        Nothing to send: without autocommit, the first statement begins a transaction.

        If there are several servers, the server is asked whether it still takes writes. A server
        that has become a replica may go on to answer reads, with older and older rows.
        """
        if len(self._servers) > 1 and _only_reads(cursor):
            # Nothing is done yet: the transaction is run again on a new connection.
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, "the server takes no more writes")

    def check_table(self, cursor: Cursor) -> None:
        self._check_version(cursor)
        for suffix in columns_of("mysql"):
            self._check_columns(cursor, suffix)
        self._check_indexes(cursor)
        self.check_engine(cursor)
        self._check_limits(cursor)
        self._knows = True

    def _no_table(self, suffix: str) -> str:
        return (
            f"there is no table {self.named(suffix)} in {self.where()} that user {self._user!r} "
            "may use: create it with dalga --config FILE --create-table"
        )

    def _check_version(self, cursor: Cursor) -> None:
        """:raises StartupError: if the jobs table is not there, or of another schema version."""
        version = self.version(cursor, "")
        if version != VERSION:
            columns = self.columns(cursor, "")
            if not columns:
                self._refuse_half_upgraded(cursor)
                raise StartupError(self._no_table(""))
            what = misfit(version, columns, go_release(columns), ANOTHER, UPGRADE)
            raise StartupError(f"the table {self.table} in {self.where()} {what}")

    def _check_columns(self, cursor: Cursor, suffix: str) -> None:
        """:raises StartupError: if a table is missing, or not as we make it."""
        columns = self.columns(cursor, suffix)
        if not columns:
            raise StartupError(self._no_table(suffix))
        what = lacking(columns, columns_of("mysql")[suffix], ANOTHER)
        if what is None:
            cursor.execute(
                "SELECT engine FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = %(table)s",
                {"table": self._name + suffix},
            )
            ((engine,),) = cursor.fetchall()
            # Without transactions, a statement that fails half way leaves half of its rows written.
            if engine == "InnoDB":
                return
            what = (
                f"is kept by the storage engine {engine}, which has no transactions as Dalga needs "
                f"them: change that with ALTER TABLE {self.named(suffix)} ENGINE = InnoDB"
            )
        raise StartupError(f"the table {self.named(suffix)} in {self.where()} {what}")

    def _check_limits(self, cursor: Cursor) -> None:
        """:raises StartupError: if the server takes shorter statements, or fewer sessions."""
        cursor.execute("SELECT @@max_allowed_packet, @@max_user_connections")
        ((longest, sessions),) = cursor.fetchall()
        if longest < self._longest:
            raise StartupError(
                f"{self.where()} takes statements of {longest} bytes at the most, and Dalga's have "
                f"up to {self._longest}: set max_allowed_packet = 16M on the server"
            )
        each, processes = self._places.most, self._processes
        if 0 < sessions < each * processes:
            who = f"this instance has up to {each}"
            if processes > 1:
                who = f"{processes} workers have up to {each} each"
            do = f"set maxOpenConns = {sessions // processes} in [mysql]"
            if sessions < processes:
                do = f"set workers = {sessions} and maxOpenConns = 1"
            raise StartupError(
                f"user {self._user!r} may have {sessions} sessions at once at {self.where()}, and "
                f"{who}: {do}, or raise max_user_connections"
            )

    def _check_indexes(self, cursor: Cursor) -> None:
        """:raises StartupError: if an index is missing that our statements name."""
        found = self.indexes(cursor)
        for index, definition in (
            ("primary", "PRIMARY KEY (id)"),
            ("job", "UNIQUE KEY job (path, body)"),
            ("due", "KEY due (due)"),
            ("state", "KEY state (disabled, standing)"),
        ):
            if index not in found:
                raise StartupError(
                    f"the table {self.table} in {self.where()} has no index {index}: put it back "
                    f"with ALTER TABLE {self.table} ADD {definition}"
                )

    def indexes(self, cursor: Cursor) -> set[str]:
        cursor.execute(
            "SELECT index_name FROM information_schema.statistics "
            "WHERE table_schema = DATABASE() AND table_name = %(table)s",
            {"table": self._name},
        )
        return {name.lower() for (name,) in cursor.fetchall()}

    def create_table(self, cursor: Cursor) -> list[str]:
        suffixes = [suffix for suffix in columns_of("mysql") if not self.columns(cursor, suffix)]
        if "" in suffixes:
            self._refuse_half_upgraded(cursor)
        else:
            self._check_version(cursor)
        statements = definitions("mysql", self._name)
        for suffix, statement in zip(columns_of("mysql"), statements, strict=True):
            if suffix in suffixes:
                self._create(cursor, statement)
        if not suffixes:
            self.check_table(cursor)
            raise TableExists(f"the table {self.table} is there already, in {self.where()}")
        return [self.named(suffix) for suffix in suffixes]

    def _create(self, cursor: Cursor, statement: str) -> None:
        """:raises StartupError: if the user may not make tables."""
        try:
            cursor.execute(statement)
        except pymysql.err.MySQLError as error:
            if error.args[:1] not in _NO_RIGHT:
                raise
            sentence = (self.explain(error) or "").rstrip(".")
            raise StartupError(
                f"{sentence}; grant CREATE on the tables of database {self._database!r} to user "
                f"{self._user!r}"
            ) from error

    def _refuse_half_upgraded(self, cursor: Cursor) -> None:
        """:raises StartupError: if an interrupted upgrade has left the jobs in the old table."""
        if self.columns(cursor, BACKUP):
            raise StartupError(
                f"there is no table {self.table} in {self.where()}, but a {self.named(BACKUP)}, as "
                f"an upgrade leaves it that was interrupted: let it go on with {UPGRADE}, or, if "
                f"you want a new table, give {self.named(BACKUP)} another name first"
            )

    def key(self, text: str) -> object:
        return text.encode("utf-8")

    def joined(self, texts: Sequence[str]) -> str:
        return f"CAST(CONCAT_WS(CHAR(10), {', '.join(texts)}) AS BINARY)"

    def whole(self, column: str) -> str:
        return column

    def hexadecimal(self, column: str) -> str:
        return f"CASE WHEN {column} IS NULL THEN 'NULL' ELSE CONCAT('X', QUOTE(HEX({column}))) END"

    def length(self, column: str) -> str:
        return f"LENGTH({column})"

    def is_blob(self, column: str) -> str:
        return "0"  # all octets are of one kind

    def octets(self, name: str, is_blob: bool) -> str:
        return f"%({name})s"

    def time_octets(self, name: str, is_blob: bool) -> str:
        return f"CAST(%({name})s AS DATETIME(6))"

    def instant(self, instant: datetime) -> object:
        return instant_text(instant)

    def read_instant(self, value: object) -> datetime:
        return as_instant(value)

    def update_rows(self, fields: tuple[str, ...], assignments: str, condition: str) -> Statement:
        return self.prepare(f"""
            UPDATE ({_derived(fields)}) AS new STRAIGHT_JOIN {self.table}{self.by_id}
                ON id = row_id AND token = row_token
            SET {assignments} WHERE {condition}
            """)

    def delete_rows(self, fields: tuple[str, ...], condition: str) -> Statement:
        return self.prepare(f"""
            DELETE {self.table}
            FROM ({_derived(fields)}) AS old STRAIGHT_JOIN {self.table}{self.by_id}
                ON id = row_id AND token = row_token
            WHERE {condition}
            """)

    def by_index(self, name: str) -> str:
        return f" FORCE INDEX ({name})"

    def delete_by_index(self, suffix: str, index: str, where: str = BY_ID) -> Statement:
        table = self.named(suffix)
        return self.prepare(f"""
            DELETE old FROM {table} AS old FORCE INDEX ({index}) WHERE {where}
            """)

    def delete_first(
        self, suffix: str, fixed: str, order: tuple[str, ...], before: str
    ) -> Statement:
        return self.prepare(f"""
            DELETE FROM {self.named(suffix)} WHERE {fixed} AND {before}
            ORDER BY {", ".join(order)} LIMIT %(limit)s
            """)

    def insert_records(
        self, cursor: Cursor, rows: Sequence[RecordValues], over: bool = False
    ) -> None:
        # The driver would take each value by a call. Octets and text are hexadecimal, so nothing
        # has to be escaped.
        shared, others = None, ""
        texts = []
        for row in rows:
            job, run, path, pathkey, body, jobkey, *times, lateness, same = row
            scheduled, claimed, started, ended = times
            if same is not shared:
                shared, others = same, _shared(same)
            # A run that was POSTed has both times.
            posted = "NULL,NULL" if started is None or ended is None else f"'{started}','{ended}'"
            texts.append(
                f"({job},X'{run}',X'{path.encode().hex()}',{pathkey},X'{body.encode().hex()}',"
                f"{jobkey},'{scheduled}','{claimed}',{posted},{lateness},{others})"
            )
        names = (*OWN, *SharedValues._fields)
        into = f"INSERT INTO {self.named(RUNS)} ({', '.join(names)}) VALUES "
        behind = ""
        if over:
            new = ", ".join(f"{name} = {self.proposed(name)}" for name in names)
            behind = f" {self.on_conflict('')} {new}"
        for part in in_parts(texts, len, LONGEST_STATEMENT // 2):
            cursor.execute(f"{into}{','.join(part)}{behind}")

    def trouble(self, error: Exception) -> Trouble | None:
        if isinstance(error, _MISREAD) and _from_the_wire(error):
            return Trouble.LOST
        if not isinstance(error, pymysql.err.MySQLError):
            return Trouble.LOST if isinstance(error, OSError) else None
        if isinstance(error, pymysql.err.InterfaceError) and error.args[:1] == (0,):
            return Trouble.LOST  # "(0, '')": the connection was closed under us
        if not _has_number(error):
            # PyMySQL and the server are out of step, unless PyMySQL was used wrongly.
            wrongly = isinstance(error, pymysql.ProgrammingError | pymysql.NotSupportedError)
            return None if wrongly else Trouble.LOST
        code = error.args[0]
        if _rolled_back(error):
            return Trouble.CONFLICT
        if code == ER.LOCK_WAIT_TIMEOUT:
            return Trouble.BUSY
        if code in _LOST:
            return Trouble.LOST
        return None if code in _MISTAKES else Trouble.UNAVAILABLE

    def is_duplicate(self, error: Exception) -> bool:
        return isinstance(error, pymysql.err.IntegrityError) and error.args[0] == ER.DUP_ENTRY

    def explain(self, error: Exception) -> str | None:
        if not isinstance(error, pymysql.err.MySQLError | OSError):
            return None
        code = error.args[0] if error.args else 0
        cant_log_in = f"user {self._user!r} can't log in to"
        what = {
            CR.CR_CONN_HOST_ERROR: "can't reach",
            CR.CR_UNKNOWN_HOST: "can't reach",
            ER.ACCESS_DENIED_ERROR: cant_log_in,
            **dict.fromkeys(_LOCKED_OUT, cant_log_in),
            1698: cant_log_in,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
            CR.CR_AUTH_PLUGIN_CANNOT_LOAD: cant_log_in,
            CR.CR_AUTH_PLUGIN_ERR: cant_log_in,
            ER.DBACCESS_DENIED_ERROR: f"user {self._user!r} may not use",
            ER.BAD_DB_ERROR: "there is no such database:",
        }.get(code, "can't use")
        words = _words(error)
        if code in (CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST):
            named_by = "socket" if isinstance(self._servers[0], str) else "host and port"
            words += f"; start the server, or name another with {named_by} in [mysql]"
        if code == 1698:
            words += (
                "; one that logs in as the system's user of its name (unix_socket, auth_socket) "
                "does that over socket in [mysql]"
            )
        return f"{what} {self.where()}: {words}"

    def explain_write(self, error: Exception) -> str | None:
        if not isinstance(error, pymysql.err.MySQLError):
            return self.explain(error)
        code = error.args[0] if _has_number(error) else 0
        *first, last = (self.named(suffix) for suffix in sorted(columns_of("mysql")))
        tables = f"{', '.join(first)} and {last}"
        rights = f"grant SELECT, INSERT, UPDATE and DELETE on {tables} to user {self._user!r}"
        writable = "it has to be a server that takes writes"
        cure = {
            1665: "set binlog_format = ROW, or MIXED, on the server",
            ER.TABLEACCESS_DENIED_ERROR: rights,
            ER.COLUMNACCESS_DENIED_ERROR: rights,
            ER.OPTION_PREVENTS_STATEMENT: writable,  # read-only
            1836: writable,  # ER_READ_ONLY_MODE
            1792: writable,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        }.get(code)
        return (
            f"can't write to the table {self.table} and those beside it in {self.where()}: "
            f"{_words(error).rstrip('.')}{f'; {cure}' if cure else ''}"
        )

    def where(self) -> str:
        return f"database {self._database!r} at {' or '.join(map(_place, self._servers))}"

    another = ANOTHER
    upgrades_at_once = False  # statements like RENAME TABLE end a transaction

    def explain_upgrade(self, error: Exception) -> str | None:
        sentence = self.explain(error)
        if sentence is None or error.args[:1] not in _NO_RIGHT:
            return sentence
        return (
            f"{sentence.rstrip('.')}; an upgrade needs the rights SELECT, INSERT, UPDATE, DELETE, "
            f"CREATE, ALTER and DROP: grant them on the tables of database {self._database!r} to "
            f"user {self._user!r}"
        )

    def for_go_tables(self) -> CopyingDialect:
        return self

    @contextmanager
    def upgrading(self) -> Iterator[Any]:
        with closing(self._connect_for_upgrade()) as connection:
            cursor = connection.cursor()
            # The server releases the lock when the connection ends, however that ends.
            table = hashlib.sha256(f"{self._database}.{self._name}".encode()).hexdigest()
            lock = {"name": f"dalga.{table[:32]}", "seconds": UPGRADE_LOCK_WAIT}
            cursor.execute("SELECT GET_LOCK(%(name)s, %(seconds)s)", lock)
            if cursor.fetchall() != ((1,),):
                raise StartupError(
                    f"another upgrade of the table {self.table} in {self.where()} is going on: "
                    "wait for its end"
                )
            yield connection

    def _connect_for_upgrade(self) -> Any:
        # No daemon uses the table meanwhile, so the session needs no place.
        session = self._connect(read_timeout=UPGRADE_TIMEOUT, write_timeout=UPGRADE_TIMEOUT)
        session.forget()
        connection = session.connection
        with connection.cursor() as cursor:
            unlimit(cursor)
            cursor.execute(
                # A time in the old table that is none (2021-02-30) can be read, and is no time in
                # the new table, either.
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES', "
                f"SESSION lock_wait_timeout = {UPGRADE_LOCK_WAIT}, SESSION autocommit = 1, "
                f"SESSION net_write_timeout = {UPGRADE_TIMEOUT}"
            )
        return connection

    def check_engine(self, cursor: Cursor) -> None:
        try:
            cursor.execute(f"SELECT 1 FROM (SELECT 1 AS one) AS nothing{self.skip_locked}")
        except pymysql.err.ProgrammingError:
            cursor.execute("SELECT VERSION()")
            ((version,),) = cursor.fetchall()
            raise StartupError(
                f"{self.where()} runs {version}, which has no SKIP LOCKED: Dalga needs "
                "MariaDB 10.6 or MySQL 8, or later"
            ) from None

    def named(self, suffix: str) -> str:
        return f"`{self._name}{suffix}`"

    def columns(self, cursor: Cursor, suffix: str) -> dict[str, str]:
        cursor.execute(
            "SELECT column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = %(table)s ORDER BY ordinal_position",
            {"table": self._name + suffix},
        )
        return {name.lower(): collation or "" for name, collation in cursor.fetchall()}

    def version(self, cursor: Cursor, suffix: str) -> int | None:
        cursor.execute(
            "SELECT table_comment FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name = %(table)s",
            {"table": self._name + suffix},
        )
        rows = cursor.fetchall()
        return version_of(rows[0][0]) if rows else None

    def rows(self, connection: Any, select: str) -> Generator[tuple[Any, ...], None, None]:
        # Row by row, so that memory does not grow with the table. That keeps a connection busy.
        with closing(self._connect_for_upgrade()) as reader:
            cursor = reader.cursor(SSCursor)
            try:
                cursor.execute(select)
                while (row := cursor.fetchone()) is not None:
                    yield row
            finally:
                with suppress(Exception):
                    cursor.close()

    def create(self, cursor: Cursor, suffix: str) -> None:
        for statement in definitions("mysql", self._name, suffix):
            cursor.execute(statement)

    def rename(self, cursor: Cursor, suffix: str, new: str) -> None:
        cursor.execute(f"RENAME TABLE {self.named(suffix)} TO {self.named(new)}")


def _no_server() -> pymysql.MySQLError:
    """The error in the place of PyMySQL's own, whose words depend on the bytes that came."""
    return pymysql.OperationalError(
        CR.CR_SERVER_HANDSHAKE_ERR, "what answers there is no MySQL or MariaDB server"
    )


def _has_number(error: pymysql.MySQLError) -> bool:
    """Whether an error has a number: the server's, or one of MySQL's own client."""
    return bool(error.args) and isinstance(error.args[0], int)


def _rolled_back(error: pymysql.MySQLError) -> bool:
    """Whether the server's error says for certain that the transaction is rolled back."""
    state = getattr(error, "sqlstate", None) or ""
    if error.args[0] in _ROLLED_BACK:
        return True
    if state.startswith("40"):
        return bool(state != _COMPLETION_UNKNOWN)
    return _ROLLED_BACK_WORDS.search(_words(error)) is not None


def _from_the_wire(error: BaseException) -> bool:
    """Whether PyMySQL raised an error over bytes that came, and not over its arguments."""
    where = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        where = str(frame.f_globals.get("__name__"))
    return where in ("pymysql.connections", "pymysql.protocol", "pymysql._auth")


def _only_reads(cursor: Cursor) -> bool:
    """Whether the server is read-only, also if this user may write all the same."""
    # The values are numbers. MariaDB 12, which has more choices than on and off, gives words.
    cursor.execute("SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only")
    ((server, tables),) = cursor.fetchall()
    return server not in (0, "OFF") or tables not in (0, "OFF")


def _place(server: Server) -> str:
    return server if isinstance(server, str) else as_in_url(*server)


def _words(error: Exception) -> str:
    """The words of a driver's exception, without its number."""
    return str(error.args[1] if len(error.args) > 1 else error)


def _datetime(text: str) -> datetime | str:
    """
    A DATETIME of the server, aware, UTC; its text if it is no time, such as 0000-00-00 00:00:00.
    """
    try:
        return datetime.fromisoformat(f"{text}+00:00")
    except ValueError:
        return text


def _derived(fields: tuple[str, ...]) -> str:
    """Rows as a derived table: the one spelling that MySQL and MariaDB share."""
    first = ", ".join(f"%({name})s AS {name}" for name in fields)
    others = ", ".join(f"%({name})s" for name in fields)
    return f"[SELECT {first} UNION ALL SELECT {others} UNION ALL ...]"


def _shared(values: SharedValues) -> str:
    """The columns that many records have in common, as SQL."""
    octets = ("endpoint", "instance")
    return ",".join(
        "NULL"
        if value is None
        else str(value)
        if isinstance(value, int)
        else f"{'' if name in octets else '_utf8mb4 '}X'{value.encode().hex()}'"
        for name, value in values._asdict().items()
    )
