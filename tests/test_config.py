"""The configuration: what is read from where, and what is refused in which words."""

from __future__ import annotations

import base64
import operator
import re
import signal
import ssl
import string
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from inspect import signature
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pymysql
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga import service, settings
from dalga.config.formats import MAX_FILE
from dalga.config.headers import HEADERS
from dalga.config.load import load_config
from dalga.config.names import ELSEWHERE, UNNEEDED, is_secret
from dalga.config.outgoing import Auth, Deny
from dalga.config.sections import (
    KEYS,
    SECTIONS,
    AlertsConfig,
    AuditConfig,
    Config,
    EndpointConfig,
    Format,
    HistoryConfig,
    JobsConfig,
    ListenConfig,
    LogConfig,
    LogFormat,
    LogLevel,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.config.tokens import TOKENS
from dalga.database import API_THREADS, RUN_THREADS, build_store, lanes, server
from dalga.dispatch.pruning import Keeping
from dalga.errors import ConfigError
from dalga.model.answers import Answers, Statuses, statuses_from_text
from dalga.model.headers import MESSAGE_HEADERS
from dalga.model.record import HistoryMode
from dalga.model.retry import RetryPolicy
from dalga.outgoing.pool import STRAIGHT
from dalga.outgoing.trust import Trust
from dalga.store import mysqltls
from dalga.store.schema import HEARTBEATS_OF
from tests.configs import (
    FORMATS,
    SIGNING,
    SIGNING_TOO,
    ConfigTestCase,
    Given,
    as_ini,
    as_toml,
    as_variable,
    as_yaml,
    in_quotes,
)
from tests.daemons import Daemon, DaemonTestCase
from tests.stores import EngineTestCase, each_engine
from tests.strategies import thorough

EXAMPLE = Path(__file__).parent.parent / "dalga.ini.example"

#: Each key with a value that is not its default, where `Config` has it and as what.
EVERY_KEY: list[tuple[str, str, str, str, Any]] = [
    ("jobs", "randomizationFactor", "0.25", "randomization_factor", 0.25),
    ("jobs", "fixedIntervals", "false", "fixed_intervals", False),
    ("jobs", "retryInterval", "1m30s", "retry.interval", timedelta(seconds=90)),
    ("jobs", "retryMultiplier", "1", "retry.multiplier", 1.0),
    ("jobs", "retryMaxInterval", "2h", "retry.max_interval", timedelta(hours=2)),
    ("jobs", "retryJitter", "0", "retry.jitter", 0.0),
    ("jobs", "retryStopAfter", "72h", "retry.stop_after", timedelta(days=3)),
    ("jobs", "maxRunning", "7", "max_running", 7),
    ("jobs", "scanFrequency", "500ms", "scan_frequency", 0.5),
    ("jobs", "shutdownTimeout", "0", "shutdown_timeout", 0.0),
    ("jobs", "workers", "4", "workers", 4),
    ("jobs", "maxPayload", "1MiB", "max_payload", 1024 * 1024),
    ("mysql", "host", "db.example", "host", "db.example"),
    ("mysql", "port", "3307", "port", 3307),
    ("mysql", "socket", "/run/mysqld/mysqld.sock", "socket", ...),
    ("mysql", "db", "work", "db", "work"),
    ("mysql", "table", "my_jobs$-1", "table", "my_jobs$-1"),
    ("mysql", "user", "dalga", "user", "dalga"),
    ("mysql", "password", "s3cr%t", "password", "s3cr%t"),
    ("mysql", "maxOpenConns", "3", "max_open_conns", 3),
    ("mysql", "dialTimeout", "500ms", "dial_timeout", 0.5),
    ("mysql", "readTimeout", "30s", "read_timeout", 30.0),
    ("mysql", "writeTimeout", "20", "write_timeout", 20.0),
    ("mysql", "ssl-mode", "required", "ssl_mode", "required"),
    ("mysql", "ssl-ca", "/etc/ca.pem", "ssl_ca", "/etc/ca.pem"),
    ("mysql", "ssl-cert", "/etc/dalga.pem", "ssl_cert", "/etc/dalga.pem"),
    ("mysql", "ssl-key", "/etc/dalga.key", "ssl_key", "/etc/dalga.key"),
    ("sqlite", "path", "/var/lib/jobs.sqlite", "path", "/var/lib/jobs.sqlite"),
    ("listen", "host", "::1", "host", "::1"),
    ("listen", "port", "0", "port", 0),
    ("listen", "idleTimeout", "90s", "idle_timeout", 90.0),
    ("listen", "readTimeout", "10s", "read_timeout", 10.0),
    ("listen", "endpoint", "unix:/a,b, systemd:a", "endpoints", ("unix:/a,b", "systemd:a")),
    ("listen", "hosts", "a.example, 10.0.0.5", "hosts", ("a.example", "10.0.0.5")),
    ("listen", "origins", "https://a.example", "origins", ("https://a.example",)),
    ("listen", "rootPath", "/dalga", "root_path", "/dalga"),
    ("listen", "trustedProxies", "10.0.0.0/8", "trusted_proxies", (ip_network("10.0.0.0/8"),)),
    ("listen", "allowUnauthenticated", "yes", "allow_unauthenticated", True),
    ("endpoint", "baseurl", "https://example.org:8443/in/", "baseurl", ...),
    ("endpoint", "timeout", "1m30s", "timeout", 90.0),
    ("endpoint", "ca", "/etc/ca.pem", "ca", "/etc/ca.pem"),
    ("endpoint", "success", "200-299, 404", "answers.success", Statuses(((200, 299), (404, 404)))),
    ("endpoint", "gone", "None", "answers.gone", Statuses(())),
    ("endpoint", "giveUp", "400-499", "answers.give_up", Statuses(((400, 499),))),
    ("endpoint", "alerts", "none", "alerts", "none"),
    ("endpoint", "secrets", f"{SIGNING}, {SIGNING_TOO}", "secrets", (SIGNING, SIGNING_TOO)),
    ("endpoint", "auth", "Bearer", "auth", Auth.BEARER),
    ("endpoint", "authUser", "dalga", "auth_user", "dalga"),
    ("endpoint", "authSecret", "s3cr%t", "auth_secret", "s3cr%t"),
    ("endpoint", "cert", "/etc/dalga.pem", "cert", "/etc/dalga.pem"),
    ("endpoint", "key", "/etc/dalga.key", "cert_key", "/etc/dalga.key"),
    ("endpoint", "verifyName", "in.example", "verify_name", "in.example"),
    ("endpoint", "deny", "private", "deny", Deny.PRIVATE),
    ("endpoint", "proxy", "http://proxy.example:3128", "proxy", "http://proxy.example:3128"),
    ("history", "mode", "failures", "mode", HistoryMode.FAILURES),
    ("history", "keep", "36h", "keep", timedelta(hours=36)),
    ("history", "keepFailed", "90d", "keep_failed", timedelta(days=90)),
    ("history", "maxRows", "1000", "max_rows", 1000),
    ("audit", "keep", "1d", "keep", timedelta(days=1)),
    ("metrics", "paths", "0", "paths", 0),
    ("metrics", "listen", "127.0.0.1:9464", "listen", ("127.0.0.1", 9464)),
    ("alerts", "url", "https://example.org/hooks?a=b", "url", ...),
    ("alerts", "format", "Slack", "format", Format.SLACK),
    ("alerts", "heartbeatUrl", "http://example.org/ping/1", "heartbeat_url", ...),
    ("alerts", "secrets", SIGNING, "secrets", (SIGNING,)),
    ("log", "format", "JSON", "format", LogFormat.JSON),
    ("log", "level", "warn", "level", LogLevel.WARN),
]


#: What some keys do not go without.
BESIDE = {
    "ssl-cert": {"ssl-mode": "required"},
    "ssl-key": {"ssl-mode": "required", "ssl-cert": "/etc/dalga.pem"},
    "ca": {"baseurl": "https://example.org/"},
    "auth": {"authSecret": "s3cret"},
    "authUser": {"auth": "basic", "authSecret": "s3cret"},
    "authSecret": {"auth": "basic", "authUser": "dalga"},
    "cert": {"baseurl": "https://example.org/", "key": "/etc/dalga.key"},
    "key": {"baseurl": "https://example.org/", "cert": "/etc/dalga.pem"},
    "verifyName": {"baseurl": "https://example.org/"},
    "deny": {"baseurl": "https://example.org/"},
}

#: Keys that nothing uses yet.
NOT_YET = {
    ("listen", "endpoint"),
    ("listen", "allowUnauthenticated"),
    ("audit", "keep"),
}

#: What is refused on SQLite.
ON_SERVERS = ("workers",)


def at_epoch() -> datetime:
    """The database's time."""
    return datetime.fromtimestamp(0, UTC)


def part(config: Config, section: str) -> Any:
    return config.database if section in ("mysql", "sqlite") else getattr(config, section)


class ReadTests(ConfigTestCase):
    def test_nothing_given(self) -> None:
        """The defaults are the original's, and the database is the embedded one."""
        config = load_config(None, {})
        self.assertEqual(config, Config())
        self.assertEqual(config.jobs, JobsConfig(0.0, True, RetryPolicy(), 100, 1.0, 10.0, 1))
        self.assertEqual(config.database, SQLiteConfig("dalga.sqlite"))
        self.assertEqual(config.listen, ListenConfig("127.0.0.1", 34006, 60.0, 30.0))
        self.assertEqual(config.endpoint, EndpointConfig("http://127.0.0.1:5000/", 10.0))
        self.assertEqual(MySQLConfig(), MySQLConfig("127.0.0.1", 3306, "test", "dalga", "root", ""))

    def test_table_of_keys_is_whole(self) -> None:
        listed = [(section, key) for section, key, *_ in EVERY_KEY]
        self.assertEqual(listed, [(section, key) for section in KEYS for key in KEYS[section]])

    def test_each_field_has_its_key(self) -> None:
        """Else it would have its default, whatever a file says; the headers are no single key, and
        the values of Authorization are parts of URLs."""
        parts: dict[Any, list[str]] = {
            EndpointConfig: ["proxy_authorization", "headers"],
            AlertsConfig: ["authorization", "heartbeat_authorization"],
        }
        for section in SECTIONS.values():
            without = [each.name for each in fields(section) if not each.metadata]
            self.assertEqual(without, parts.get(section, []))

    def test_every_key_from_the_file(self) -> None:
        for section, key, text, attribute, value in EVERY_KEY:
            for spelling in (key, key.lower(), key.upper()):
                lines = {**BESIDE.get(key, {}), spelling: text}.items()
                server = ["[mysql]"] if key in ON_SERVERS else []
                config = self.load(
                    "\n".join(
                        [*server, f"[{section}]", *(f"{name} = {value}" for name, value in lines)]
                    )
                )
                got = operator.attrgetter(attribute)(part(config, section))
                self.assertEqual(got, text if value is ... else value, key)

    def test_every_key_from_a_variable(self) -> None:
        for section, key, text, attribute, value in EVERY_KEY:
            given = {**BESIDE.get(key, {}), key: text}
            environ = {as_variable(section, key): given[key] for key in given}
            if key in ON_SERVERS:
                environ["DALGA_MYSQL_HOST"] = "db"
            config = load_config(None, environ)
            got = operator.attrgetter(attribute)(part(config, section))
            self.assertEqual(got, text if value is ... else value, key)

    def test_values_not_the_defaults(self) -> None:
        """Else the two tests above would pass where a key is not read at all."""
        for section, _key, text, attribute, value in EVERY_KEY:
            default = MySQLConfig() if section == "mysql" else part(Config(), section)
            self.assertNotEqual(
                operator.attrgetter(attribute)(default),
                text if value is ... else value,
                attribute,
            )

    def test_variable_before_file(self) -> None:
        config = self.load(
            "[listen]\nhost = 127.0.0.2\nport = 1\n[mysql]\nport = 2", DALGA_LISTEN_PORT="3"
        )
        self.assertEqual(config.listen, ListenConfig("127.0.0.2", 3))
        self.assertEqual(config.database, MySQLConfig(port=2))

    def test_bad_value_that_a_variable_replaces(self) -> None:
        config = self.load("[listen]\nport = many", DALGA_LISTEN_PORT="3")
        self.assertEqual(config.listen.port, 3)

    def test_other_variables(self) -> None:
        names = (
            "DALGA_TEST_ENGINES",
            "DALGA_MYSQLHOST",
            "dalga_listen_port",
            "MY_DALGA_LISTEN_PORT",
        )
        self.assertEqual(load_config(None, dict.fromkeys((*names, "PATH", ""), "x")), Config())

    def test_variables_that_are_nearly_ours(self) -> None:
        """Those of a misspelt section are not read, and the log says so; others are nobody's."""
        for variable, meant in [
            ("DALGA_JOB_MAXRUNNING", "DALGA_JOBS_MAXRUNNING"),
            ("DALGA_LISTN_PORT", "DALGA_LISTEN_PORT"),
            ("DALGA_listen_port", "DALGA_LISTEN_PORT"),
            ("dalga_mysql_password", "DALGA_MYSQL_PASSWORD"),
            ("DALGA_TOKEN_CI", "DALGA_TOKENS_CI"),
            ("DALGA_TOKEN_FILE", "DALGA_TOKENS_FILE"),
            ("DALGA_tokens_ci_2", "DALGA_TOKENS_CI_2"),
        ]:
            config = load_config(None, {variable: "s3cret"})
            self.assertEqual(config, Config())
            self.assertEqual(config.notes, (f"{variable} is ignored, did you mean {meant}?",))
        # Programs that call Dalga may have their token in such a variable.
        others = ("DALGA_SIZE", "DALGA_HOME", "MYSQL_PASSWORD", "DALGA_JOBS2", "DALGA_TOKEN")
        for variable in others:
            self.assertEqual(load_config(None, {variable: "1"}).notes, ())

    def test_variables_without_a_section(self) -> None:
        """They are not read, and the log says so, unless Kubernetes has set them."""
        for variable, then in [
            ("DALGA_PORT", ", did you mean DALGA_MYSQL_PORT or DALGA_LISTEN_PORT?"),
            ("DALGA_BASEURL", ", did you mean DALGA_ENDPOINT_BASEURL?"),
            ("DALGA_SSL_CA", ", did you mean DALGA_MYSQL_SSL_CA?"),
            ("DALGA_CONFIG", ": name the file with --config"),
        ]:
            config = load_config(None, {variable: "s3cret"})
            self.assertEqual(config, Config())
            self.assertEqual(config.notes, (f"{variable} is ignored{then}",))
        self.assertEqual(load_config(None, {"DALGA_PORT": "tcp://10.0.0.11:80"}).notes, ())

    def test_section_in_any_case(self) -> None:
        self.assertEqual(self.load("[MySQL]\nHOST=db").database, MySQLConfig(host="db"))

    def test_which_database(self) -> None:
        for text, variables, expected in [
            ("", {}, SQLiteConfig()),
            ("[jobs]\n[listen]\n[endpoint]\n", {}, SQLiteConfig()),
            ("[mysql]", {}, MySQLConfig()),
            ("", {"DALGA_MYSQL_PASSWORD": ""}, MySQLConfig()),
            ("[sqlite]", {}, SQLiteConfig()),
            ("", {"DALGA_SQLITE_PATH": "x"}, SQLiteConfig("x")),
        ]:
            self.assertEqual(self.load(text, **variables).database, expected, text)

    def test_password_not_in_repr(self) -> None:
        config = self.load("[mysql]\npassword = s3cret")
        self.assertEqual(config.database, MySQLConfig(password="s3cret"))
        self.assertNotIn("s3cret", repr(config))

    def test_layout(self) -> None:
        """Indentation, CRLF, a byte order mark and comments change nothing."""
        config = self.load(
            b"\xef\xbb\xbf; one\r\n# two\r\n[ listen ] ; three\r\n  host=::1\r\n"
            b"      port = 5 # x\r\n\r\n  ; four\r\n[jobs]# five\r\nmaxRunning   =   6 ;7\r\n"
        )
        self.assertEqual(config.listen, ListenConfig("::1", 5))
        self.assertEqual(config.jobs.max_running, 6)

    def test_example_is_the_defaults(self) -> None:
        self.assertEqual(load_config(str(EXAMPLE), {}), Config())

    def test_example_has_every_key(self) -> None:
        """Its commented sections, too, hold the defaults, and no key is missing from it."""
        text = EXAMPLE.read_text()
        mysql, sqlite = text.index(";[mysql]"), text.index(";[sqlite]")
        end = text.index("\n[", sqlite)
        cases: list[tuple[int, int, tuple[int, int], MySQLConfig | SQLiteConfig]] = [
            (mysql, sqlite, (sqlite, end), MySQLConfig()),
            (sqlite, end, (mysql, sqlite), SQLiteConfig()),
        ]
        for start, stop, other, expected in cases:
            bare = re.sub(r"(?m)^;(?=\S)", "", text[start:stop])
            changed = text.replace(text[start:stop], bare).replace(text[slice(*other)], "\n")
            self.assertEqual(self.load(changed), Config(database=expected))
        found = re.findall(r"(?m)^;?(?:\[([\w. ]+)\]|([\w-]+) = .*)$", text)
        sections: dict[str, list[str]] = {}
        for section, key in found:
            if section:
                current = sections.setdefault(section, [])
            else:
                current.append(key)
        self.assertTrue(sections.pop(".".join(HEADERS)))
        self.assertTrue(sections.pop(TOKENS))
        # Those of endpoints and targets with names.
        sections = {name: keys for name, keys in sections.items() if " " not in name}
        self.assertEqual(sections, {section: list(keys) for section, keys in KEYS.items()})


class QuoteTests(ConfigTestCase):
    """What of a line is the value. Passwords are where it matters, so they are the examples."""

    def password(self, raw: str) -> str:
        database = self.load(f"[mysql]\npassword = {raw}\n").database
        assert isinstance(database, MySQLConfig)
        return database.password

    def test_values(self) -> None:
        for raw, expected in [
            ("", ""),
            ("plain", "plain"),
            ("%d%(x)s%%", "%d%(x)s%%"),
            ("$HOME ${x:y}", "$HOME ${x:y}"),
            ("two words", "two words"),
            ("a=b:c", "a=b:c"),
            ("a;b#c", "a;b#c"),
            (r"a\b\\c", r"a\b\\c"),
            ('a"b"', 'a"b"'),
            ("'a'", "'a'"),
            ("ş🔑", "ş🔑"),
            ('""', ""),
            ('"plain"', "plain"),
            ('" a # b ; c "', " a # b ; c "),
            ('";#"', ";#"),
            (r'"a\"b\\c"', r'a"b\c'),
            ('"a" ; a comment', "a"),
            ('"a"  # "another"', "a"),
        ]:
            self.assertEqual(self.password(raw), expected, raw)

    def test_comment_behind_value(self) -> None:
        for raw in ("db ; comment", "db # comment", "db\t;comment", 'db ; "x"', '"db" # c'):
            self.assertEqual(self.load(f"[mysql]\nhost = {raw}").database, MySQLConfig(host="db"))
        self.assertIn("[mysql] host is ''", self.refusal("[mysql]\nhost = ; comment"))

    def test_variable_is_literal(self) -> None:
        for text in ('"a"', "a # b", "; a", " a ", r"a\\b", "%(x)s"):
            config = load_config(None, {"DALGA_MYSQL_PASSWORD": text})
            self.assertEqual(config.database, MySQLConfig(password=text))

    def test_password_or_comment(self) -> None:
        """Guessing which would end as "access denied"."""
        for raw in ("s3cret #1", "s3cret ; old", "#s3cret", ";s3cret"):
            self.assertEqual(
                self.refusal(f"[mysql]\npassword = {raw}"),
                "ini: [mysql] password (not shown): put it in double quotes, as it has a ; or # "
                "that starts a comment",
            )

    def test_bad_quotes(self) -> None:
        for raw in ('"', '"s3cret', '"s3cret"x', '"s3"cret"', r'"s3cret\"', r'"s3\cret"', '"s3";c'):
            refusal = self.refusal(f"[mysql]\npassword = {raw}")
            self.assertTrue(refusal.startswith("ini: [mysql] password (not shown): "), refusal)
            self.assertIn('what starts with " ends with "', refusal)
            self.assertNotIn("cret", refusal)


class FileRefusalTests(ConfigTestCase):
    def test_unreadable(self) -> None:
        here = self.mktemp()
        Path(here).mkdir(parents=True)
        loop = Path(here, "loop")
        loop.symlink_to("loop")
        for path, reason in [
            (f"{here}/missing.ini", "No such file or directory"),
            ("", "No such file or directory"),
            (here, "Is a directory"),
            (f"{self.write('')}/dalga.ini", "Not a directory"),
            (str(loop), "Too many levels of symbolic links"),
            ("dalga\0.ini", "embedded null byte"),
        ]:
            error = self.assertRaises(ConfigError, load_config, path, {})
            self.assertEqual(
                str(error),
                f"can't read the configuration file {path!r} ({reason}): give the path of an ini "
                "file such as dalga.ini.example, of a .toml or a .yaml file, or none for the "
                "defaults",
            )

    def test_not_utf8(self) -> None:
        for text in ("[mysql]\nuser = jöb".encode("latin-1"), b"\xff\xfe[\0", b"\x7fELF\x80"):
            self.assertIn("ini is not UTF-8 text (byte ", self.refusal(text))

    def test_not_ini(self) -> None:
        for text, line in [
            ('{"mysql": {}}', 1),
            ("\n\n[mysql]\ns3cret", 4),
            ("[mysql]\npassword: s3cret", 2),
            ("[mysql]\nhost = a\n  s3cret", 3),
            ("[mysql\n", 1),
            ("[]\n", 1),
            ("[mysql]\n= s3cret", 2),
            ("[mysql] s3cret", 1),
            ("[ ]\n", 1),
        ]:
            self.assertEqual(
                self.refusal(text),
                f"ini, line {line}: this is not an ini file's line, which is a [section], a key = "
                "value in one, or a comment after ; or #",
            )

    def test_key_before_a_section(self) -> None:
        self.assertEqual(
            self.refusal("; first\nmaxRunning = 5\n[jobs]\n"),
            "ini, line 2: this is a key before the first section, put it below the [section] that "
            "it belongs to",
        )

    def test_long_lines(self) -> None:
        """Each is read once; a pattern that backs up would take from seconds to hours."""
        spaces = " " * (MAX_FILE - 100)
        for text, expected in [
            (f"[{spaces[:2000]}x", "ini, line 1: this is not an ini file's line"),
            (f"[mysql]\nhost{spaces}x", "ini, line 2: this is not an ini file's line"),
            (f"[mysql]\nport = 1{spaces}x", "ini: [mysql] port is '1 "),
            (f"[mysql]\nport = {'9' * len(spaces)}x", "ini: [mysql] port is '999"),
            (f"[endpoint]\ntimeout = {'9' * len(spaces)}", "ini: [endpoint] timeout is '999"),
            (f'[mysql]\npassword = "{spaces}', "ini: [mysql] password (not shown): what starts"),
        ]:
            start = time.thread_time()
            self.assertIn(expected, self.refusal(text))
            self.assertLess(time.thread_time() - start, 1.0)

    def test_key_on_the_line_of_its_section(self) -> None:
        """It would have been passed over in silence."""
        self.assertIn("ini, line 1", self.refusal("[mysql] host = db"))
        self.assertIn("has no key '[mysql] host'", self.refusal("[jobs]\n[mysql] host = db"))

    def test_twice(self) -> None:
        for text, expected in [
            ("[jobs]\n[jobs]", "ini, line 2: the section [jobs] is there twice, put its keys"),
            (
                "[endpoint.headers]\n[endpoint.headers]",
                "ini, line 2: the section [endpoint.headers] is there twice, put its keys",
            ),
            ("[jobs]\n[Jobs]", "ini: the section [jobs] is there twice, put its keys together"),
            ("[mysql]\nhost=a\nhost=a", "ini, line 3: [mysql] host is there twice, leave one"),
            ("[mysql]\nhost=a\nHOST=a", "ini: [mysql] host is there twice, leave one"),
        ]:
            self.assertIn(expected, self.refusal(text))

    def test_two_databases(self) -> None:
        for text, variables, expected in [
            ("[mysql]\n[sqlite]", {}, "[mysql] in ini and [sqlite] in ini each choose"),
            ("[sqlite]", {"DALGA_MYSQL_HOST": "x"}, "DALGA_MYSQL_HOST and [sqlite] in ini each"),
            ("[mysql]", {"DALGA_SQLITE_PATH": "x"}, "[mysql] in ini and DALGA_SQLITE_PATH each"),
        ]:
            self.assertIn(expected, self.refusal(text, **variables))

    def test_unknown_section(self) -> None:
        for section, expected in [
            ("msql", "ini: there is no section [msql], did you mean [mysql]?"),
            ("Endpiont", "ini: there is no section [Endpiont], did you mean [endpoint]?"),
            ("MariaDB", "ini: there is no section [MariaDB], did you mean [mysql]?"),
            (
                "DEFAULT",
                "ini: there is no section [DEFAULT], there is "
                + ", ".join(f"[{name}]" for name in (*SECTIONS, TOKENS)),
            ),
        ]:
            self.assertEqual(self.refusal(f"[{section}]\nhost = x\n[mysql]"), expected)

    def test_unknown_key(self) -> None:
        for section, key, expected in [
            ("mysql", "pasword", "has no key 'pasword', did you mean password?"),
            ("jobs", "MaxRuning", "has no key 'MaxRuning', did you mean maxRunning?"),
            ("mysql", "Database", "has no key 'Database', did you mean db?"),
            ("mysql", "tls", "has no key 'tls', did you mean ssl-mode?"),
            ("listen", "address", "has no key 'address', did you mean host?"),
            ("sqlite", "database", "has no key 'database', there is path"),
            (
                "listen",
                "baseurl",
                "has no key 'baseurl', there is host, port, idleTimeout, readTimeout, endpoint, "
                "hosts, origins, rootPath, trustedProxies, allowUnauthenticated",
            ),
            ("sqlite", "table", "has no key 'table', there is path"),
        ]:
            refusal = self.refusal(f"[{section}]\n{key} = x")
            self.assertEqual(refusal, f"ini: [{section}] {expected}")

    def test_unknown_variable(self) -> None:
        for name, hint in [
            ("DALGA_MYSQL_PASWORD", ", did you mean DALGA_MYSQL_PASSWORD?"),
            ("DALGA_MYSQL_DATABASE", ", did you mean DALGA_MYSQL_DB?"),
            ("DALGA_MYSQL_TLS", ", did you mean DALGA_MYSQL_SSL_MODE?"),
            ("DALGA_MYSQL_SERVICE_HOST", ""),
            ("DALGA_SQLITE_", ", did you mean DALGA_SQLITE_PATH?"),
            ("DALGA_LISTEN", ""),
            ("DALGA_LISTEN_Port", ", did you mean DALGA_LISTEN_PORT?"),
            ("DALGA_MYSQL_HOST\n", ", did you mean DALGA_MYSQL_HOST?"),
            ("DALGA_MYSQL_H\udcffOST", ", did you mean DALGA_MYSQL_HOST?"),
        ]:
            refusal = self.refusal(None, **{name: "x"})
            shown = repr(name)[1:-1]
            self.assertTrue(refusal.startswith(f"{shown} is not a variable of Dalga's"), refusal)
            self.assertIn(hint, refusal)


#: What a Service, or a linked container, may be called: Dalga itself, and each section.
SERVICES = (
    "dalga",
    *(f"dalga-{section}" for section in (*KEYS, TOKENS)),
    "dalga-mysql-primary",
    "dalga-jobs-2",
)


def service_links(service: str, address: str, *ports: tuple[int, str, str]) -> dict[str, str]:
    """
    The variables that Kubernetes sets for a Service where ``enableServiceLinks`` is true.

    :param ports: each port's number, protocol and name, which is empty where it has none.
    """
    name = service.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    links = {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(ports[0][0]),
        f"{name}_PORT": f"{ports[0][1]}://{host}:{ports[0][0]}",
    }
    for port, protocol, title in ports:
        if title:
            links[f"{name}_SERVICE_PORT_{title.upper().replace('-', '_')}"] = str(port)
        prefix = f"{name}_PORT_{port}_{protocol.upper()}"
        links[prefix] = f"{protocol}://{host}:{port}"
        links[f"{prefix}_PROTO"] = protocol
        links[f"{prefix}_PORT"] = str(port)
        links[f"{prefix}_ADDR"] = address
    return links


def container_links(alias: str) -> dict[str, str]:
    """The variables that ``docker run --link db:alias`` sets, for a port and a range of ports."""
    name = alias.upper().replace("-", "_")
    ports = f"{name}_PORT_3306_TCP"
    ranges = f"{name}_PORT_4567_TCP"
    return {
        f"{name}_NAME": f"/web.1/{alias}",
        f"{name}_PORT": "tcp://172.17.0.5:3306",
        ports: "tcp://172.17.0.5:3306",
        f"{ports}_PROTO": "tcp",
        f"{ports}_PORT": "3306",
        f"{ports}_ADDR": "172.17.0.5",
        f"{ranges}_START": "tcp://172.17.0.5:4567",
        f"{ranges}_END": "tcp://172.17.0.5:4568",
        f"{ranges}_PORT_START": "4567",
        f"{ranges}_PORT_END": "4568",
        f"{name}_ENV_MYSQL_ROOT_PASSWORD": "s3cret",
        f"{name}_ENV_GOSU_VERSION": "1.7",
    }


class LinkTests(ConfigTestCase):
    """What Kubernetes and docker links set for a service of a name like ours."""

    def test_no_configuration(self) -> None:
        """Nothing of it is taken, not even as a choice of the database, and each is noted."""
        mysql = (3306, "tcp", "mysql")
        for name in SERVICES:
            for links in (
                service_links(name, "10.0.0.11", (3306, "tcp", "")),
                service_links(name, "fd00::b", mysql, (33060, "tcp", "mysql-x")),
                service_links(name, "10.0.0.11", (53, "udp", "dns"), (9, "sctp", "s")),
                container_links(name),
                container_links(f"{name}-1"),
            ):
                config = load_config(None, links)
                self.assertEqual(config, Config())
                others = () if name == "dalga" else sorted(links)
                self.assertEqual(config.links, tuple(others))

    def test_beside_our_own(self) -> None:
        """A variable that an operator sets has its meaning beside them."""
        links = service_links("dalga-mysql", "10.0.0.11", (3306, "tcp", ""))
        own = {"DALGA_MYSQL_HOST": "db", "DALGA_MYSQL_PORT": "3307"}
        self.assertEqual(
            load_config(None, {**links, **own}).database, MySQLConfig(host="db", port=3307)
        )
        # A link's name, of which no variable of ours can be a part.
        linked = {"DALGA_MYSQL_HOST": "db", "DALGA_MYSQL_HOST_NAME": "/web/db"}
        config = load_config(None, linked)
        self.assertEqual(config.database, MySQLConfig(host="db"))
        self.assertEqual(config.links, ("DALGA_MYSQL_HOST_NAME",))

    def test_mistakes(self) -> None:
        """What has their names but not their values, or the other way round, is refused."""
        for name, text in [
            ("DALGA_MYSQL_SERVICE_HOST", "db1"),
            ("DALGA_MYSQL_SERVICE_HOST", "db"),
            ("DALGA_MYSQL_SERVICE_PORT", "tcp"),
            ("DALGA_MYSQL_PORT", "33o7"),
            ("DALGA_MYSQL_PORT", "mysql://10.0.0.11:3306"),
            ("DALGA_LISTEN_PORT", "10.0.0.11:80"),
            ("DALGA_LISTEN_PORT", "tcp://10.0.0.11"),
            ("DALGA_LISTEN_PORT", "tcp://localhost:8080"),
            ("DALGA_MYSQL_PORT", "tcp://db.example.com:3306"),
            ("DALGA_MYSQL_PORT_3306_TCP", "tcp://"),
            ("DALGA_MYSQL_PORTS", "tcp://10.0.0.11:3306"),
            ("DALGA_MYSQL_PORT_3306", "tcp://10.0.0.11:3306"),
            ("DALGA_MYSQL_PORT_3306_TCP", "3306"),
            ("DALGA_MYSQL_NAME", "dalga"),
            ("DALGA_MYSQL_ENV_PASSWORD", "s3cret"),
            ("DALGA_MYSQL_HOST_ADDR", "10.0.0.11"),
        ]:
            refusal = self.refusal(None, **{name: text})
            self.assertTrue(refusal.startswith(name), refusal)
            self.assertNotIn("s3cret", refusal)


class ValueRefusalTests(ConfigTestCase):
    """
    Each value is refused in the file and in a variable, in a sentence that names where it stands,
    what was given, and what would do.
    """

    def check(
        self,
        section: str,
        key: str,
        refused: list[str],
        accepted: list[str],
        do: str,
        **beside: str,
    ) -> None:
        """:param beside: variables that accepted values do not go without."""
        name = as_variable(section, key)
        for text in refused:
            self.assertEqual(self.refusal(None, **{name: text}), f"{name} is {text!r}: {do}")
            if "\0" not in text and text == text.strip():
                quoted = text.replace("\\", "\\\\").replace('"', '\\"')
                self.assertEqual(
                    self.refusal(f'[{section}]\n{key} = "{quoted}"'),
                    f"ini: [{section}] {key} is {text!r}: {do}",
                )
        for text in accepted:
            load_config(None, {**beside, name: text})

    def test_whole_numbers(self) -> None:
        bad = ["", "abc", "1.5", "1e2", "+1", " 1", "1_0", "0x1", "-1", "nan", "٣", "9" * 18]
        for section, key, low, high in [
            ("mysql", "port", 1, 65535),
            ("mysql", "maxOpenConns", 0, 10_000),
            ("listen", "port", 0, 65535),
            ("jobs", "maxRunning", 1, 10_000),
            ("history", "maxRows", 1, 10_000_000_000),
            ("metrics", "paths", 0, 10_000),
        ]:
            self.check(
                section,
                key,
                [*bad, str(low - 1), str(high + 1)],
                [str(low), str(high), "0080"],
                f"it takes a whole number from {low} to {high}",
            )

    def test_sizes(self) -> None:
        """In bytes, KiB or MiB, each in any case."""
        self.check(
            "jobs",
            "maxPayload",
            ["", "0", "-1", "1.5KiB", "64KB", "64k", "1025KiB", "2MiB", "1048577", "9" * 18],
            ["1", "1048576", "64KiB", "64 kib", "1mib", "065536"],
            "it takes 1 to 1048576 bytes, such as 65536, 64KiB or 1MiB",
        )
        for text, octets in [("1", 1), ("64KiB", 65536), ("1 MIB", 1048576), ("1000", 1000)]:
            config = load_config(None, {"DALGA_JOBS_MAXPAYLOAD": text})
            self.assertEqual(config.jobs.max_payload, octets)

    def test_history(self) -> None:
        """Durations may have days there."""
        self.check(
            "history",
            "mode",
            ["", "none", "success"],
            ["all", "Failures", "off"],
            "it takes all, failures or off",
        )
        for key in ("keep", "keepFailed"):
            self.check(
                "history",
                key,
                ["59s", "3651d", "1w", "d", "P1M"],
                ["1m", "3650d", "7d", "1d12h", "P7D", "3600"],
                "it takes a duration from 1m to 3650d, in seconds (10, 2.5), with a unit (10s, 5m, "
                "1h30m, 7d), or as ISO 8601 has it without years and months (P7D)",
            )

    def test_log(self) -> None:
        self.check("log", "format", ["", "xml"], ["text", "JSON"], "it takes text or json")
        self.check(
            "log",
            "level",
            ["", "warning", "10", "critical"],
            ["debug", "Info", "WARN", "error"],
            "it takes debug, info, warn or error",
        )

    def test_workers(self) -> None:
        """A number, or as many as there are cores, which is 0 here; on one file, one."""
        self.check(
            "jobs",
            "workers",
            ["", "0", "65", "-1", "1.5", "all", "autos"],
            ["1", "auto", "AUTO"],
            "it takes a whole number from 1 to 64, or auto",
        )
        mysql = {"DALGA_MYSQL_HOST": "db"}
        for text, workers in [("1", 1), ("64", 64), ("Auto", 0)]:
            config = load_config(None, {**mysql, "DALGA_JOBS_WORKERS": text})
            self.assertEqual((config.jobs.workers, config.notes), (workers, ()))
        why = "an SQLite file is for one process"
        self.assertEqual(
            self.refusal("[jobs]\nworkers = 2"),
            f"ini: [jobs] workers is '2': {why}; keep the jobs in MySQL or MariaDB ([mysql]), or "
            "give 1",
        )
        config = self.load("[jobs]\nworkers = auto")
        (note,) = config.notes
        self.assertEqual(config.jobs.workers, 1)
        self.assertIn(f"[jobs] workers is auto, which is 1 here: {why}; with [mysql]", note)

    def test_workers_option(self) -> None:
        """It goes before the variable, also before one that is refused; and is refused itself."""
        path = self.write("[mysql]\n[jobs]\nworkers = 2")
        self.assertEqual(load_config(path, {}).jobs.workers, 2)
        environ = {"DALGA_JOBS_WORKERS": "3"}
        self.assertEqual(load_config(path, environ).jobs.workers, 3)
        self.assertEqual(load_config(path, environ, "4").jobs.workers, 4)
        self.assertEqual(load_config(path, {"DALGA_JOBS_WORKERS": "x"}, "auto").jobs.workers, 0)
        error = self.assertRaises(ConfigError, load_config, path, environ, "no")
        expected = "--workers is 'no': it takes a whole number from 1 to 64, or auto"
        self.assertEqual(str(error), expected)

    def test_numbers(self) -> None:
        bad = ["", "-0.1", "nan", "inf", "-inf", "1e-3", "0,5", "10%", ".", "0x1", "1_0"]
        for key, low, high, example in [
            ("randomizationFactor", 0, 1, "0.25"),
            ("retryJitter", 0, 1, "0.5"),
            ("retryMultiplier", 1, 100, "1.5"),
        ]:
            self.check(
                "jobs",
                key,
                [*bad, str(low - 0.01), str(high + 0.01)],
                [str(low), str(high), "1", "1.0", "1."],
                f"it takes a number from {low} to {high}, such as {example}",
            )

    def test_booleans(self) -> None:
        bad = ["", "2", "y", "tru", "null", "00", "1.0"]
        good = ["true", "FALSE", "Yes", "no", "on", "off", "1", "0"]
        self.check("jobs", "fixedIntervals", bad, good, "it takes true or false")
        for text in good:
            config = load_config(None, {"DALGA_JOBS_FIXEDINTERVALS": text})
            expected = text.lower() in ("true", "yes", "on", "1")
            self.assertEqual(config.jobs.fixed_intervals, expected)

    def test_durations(self) -> None:
        bad = ["", "abc", "-1", "nan", "inf", "1e1", "10 s", "10S", "s", "1h30", "1d", "+1"]
        # No number of seconds, none without a calendar, and none at all.
        bad += ["P1M", "P1Y", "P1M1D", "PT", "P", "-PT5M", "PT1.5H30M", "P1W1D", "P9999999999D"]
        zeros = ["0", "0s", "0.0", "PT0S", "P0D"]
        for section, key, low, high, more, good in [
            (
                "jobs",
                "retryInterval",
                "1ms",
                "8760h",
                ["P366D", "PT0.0009S"],
                ["PT0.001S", "P365D"],
            ),
            ("jobs", "retryMaxInterval", "1ms", "8760h", ["8761h", "0.0009"], ["0.001", "8760h"]),
            ("jobs", "retryStopAfter", "0", "8760h", ["8761h"], [*zeros, "1ms", "8760h"]),
            ("jobs", "scanFrequency", "1ms", "1h", ["3601", "0.0009"], ["0.001", "3600"]),
            ("jobs", "shutdownTimeout", "0", "1h", ["3601", "61m", "P1D"], [*zeros, "PT1H"]),
            ("mysql", "dialTimeout", "100ms", "5m", ["99ms", "PT5M1S"], ["0.1", "PT5M"]),
            ("mysql", "readTimeout", "2s", "5m", ["1.9", "301"], ["2", "5m"]),
            ("mysql", "writeTimeout", "2s", "5m", ["1.9", "301"], ["2", "5m"]),
            ("listen", "idleTimeout", "1s", "1h", ["999ms", "3601"], ["1", "1h"]),
            ("listen", "readTimeout", "1s", "1h", ["999ms", "3601"], ["1", "1h"]),
            ("endpoint", "timeout", "1ms", "1h", ["3601", "61m"], ["1h", "3600", "0.001"]),
        ]:
            self.check(
                section,
                key,
                [*bad, *more, *([] if low == "0" else zeros)],
                good,
                f"it takes a duration from {low} to {high}, in seconds (10, 2.5), with a unit "
                "(500ms, 10s, 5m, 1h30m), or as ISO 8601 has it without years and months (PT5M)",
            )

    def test_duration_spellings(self) -> None:
        for text, seconds in [
            ("10", 10.0),
            ("2.5", 2.5),
            ("10s", 10.0),
            ("500ms", 0.5),
            ("5m", 300.0),
            ("1h", 3600.0),
            ("0.5h", 1800.0),
            ("1m30s", 90.0),
            ("1m1s500ms", 61.5),
            ("PT5M", 300.0),
            ("pt1m30s", 90.0),
            ("PT0.5H", 1800.0),
            ("PT0,5S", 0.5),
            ("P0DT10S", 10.0),
        ]:
            config = load_config(None, {"DALGA_ENDPOINT_TIMEOUT": text})
            self.assertEqual(config.endpoint.timeout, seconds, text)
        for text, days in [("P1D", 1), ("P1DT12H", 1.5), ("P2W", 14)]:
            config = load_config(None, {"DALGA_JOBS_RETRYSTOPAFTER": text})
            self.assertEqual(config.jobs.retry.stop_after, timedelta(days=days), text)

    def test_hosts(self) -> None:
        bad = ["", "a b", "db:3306", "[::1]", "http://db", "db/x", "u@db", "a,b", "1::2::3", " "]
        good = ["localhost", "db-1.example.org", "10.0.0.1", "::", "fe80::1%eth0", "örnek.com"]
        do = (
            "it takes a host name or an IP address, without a port and without brackets, and "
            "0.0.0.0 or :: for all of this machine's"
        )
        plain = [text for text in bad if "@" not in text]
        self.check("listen", "host", plain, good, do, DALGA_LISTEN_ALLOWUNAUTHENTICATED="yes")
        self.assertIn(do, self.refusal(None, DALGA_LISTEN_HOST="u@db"))

    def test_hosts_of_mysql(self) -> None:
        """There may be several, each with a port of its own."""
        lists = {
            "db": [("db", 3306)],
            "db:3307": [("db", 3307)],
            "a,b": [("a", 3306), ("b", 3306)],
            " a:1 ,b , c:65535": [("a", 1), ("b", 3306), ("c", 65535)],
            "::1": [("::1", 3306)],
            "[::1], [fe80::1%eth0]:3307, ::": [
                ("::1", 3306),
                ("fe80::1%eth0", 3307),
                ("::", 3306),
            ],
            "10.0.0.1:3307,örnek.com": [("10.0.0.1", 3307), ("örnek.com", 3306)],
        }
        bad = ["", " ", ",", "a,", ",a", "a,,b", "a b", "a;b", "db:", ":3306", "db:0", "db:65536"]
        bad += ["db:x", "db:-1", "db:123456", "[::1", "[::1]3306", "[::1]:", "[db]:3306", "[]:1"]
        bad += ["http://db", "db/x", "1::2::3", "a:1:2", "a,http://db"]
        do = (
            "it takes a host name or an IP address, or several with commas between them, each with "
            "a port if that is not port's: db1, db2:3307, [::1]:3307"
        )
        self.check("mysql", "host", bad, list(lists), do)
        self.assertEqual(self.refusal(None, DALGA_MYSQL_HOST="u@db")[-len(do) :], do)
        for text, servers in lists.items():
            database = load_config(None, {"DALGA_MYSQL_HOST": text}).database
            assert isinstance(database, MySQLConfig)
            self.assertEqual(database.servers, servers, text)
        database = self.load("[mysql]\nhost = a, b:3307\nport = 1").database
        assert isinstance(database, MySQLConfig)
        self.assertEqual(database.servers, [("a", 1), ("b", 3307)])

    def test_table(self) -> None:
        """It goes into SQL between backquotes."""
        self.check(
            "mysql",
            "table",
            ["", "a`b", "a b", "a.b", "a;b", "jöbs", "x" * 54, "a\\", '"'],
            ["a", "x" * (64 - max(map(len, HEARTBEATS_OF.values()))), "A-z_0$"],
            "it takes 1 to 53 ASCII letters, digits, _, $ and -",
        )

    def test_names(self) -> None:
        self.check("mysql", "db", [""], ["a b", "jöbs"], "it takes the name of a database")
        self.check("mysql", "user", [""], ["a b", "jöbs"], "it takes the name of a database user")
        self.check(
            "sqlite",
            "path",
            ["", ":memory:"],
            ["a b/c.sqlite", "memory"],
            "it takes the path of a file, such as dalga.sqlite",
        )

    def test_undisplayable(self) -> None:
        for section, key, *_ in EVERY_KEY:
            of_text = (
                *("host", "db", "table", "user", "password", "path", "baseurl", "socket", "ca"),
                *("authUser", "authSecret", "cert", "key", "verifyName", "proxy", "rootPath"),
                *("hosts", "origins", "trustedProxies", "url", "heartbeatUrl"),
            )
            if key in of_text or key.startswith("ssl-"):
                name = as_variable(section, key)
                for text, reason in [
                    ("a\nb", "it has the control character U+000A, leave it out"),
                    ("a\0b", "it has the control character U+0000, leave it out"),
                    ("a\x7fb", "it has the control character U+007F, leave it out"),
                    ("a\udcffb", "it is not UTF-8, write it in UTF-8"),
                ]:
                    refusal = self.refusal(None, **{name: text})
                    self.assertTrue(refusal.startswith(name) and refusal.endswith(reason))
                    self.assertEqual(repr(text) in refusal, not is_secret(section, key))
                    refusal.encode("utf-8")

    def test_long_value_is_cut(self) -> None:
        refusal = self.refusal(f"[mysql]\ntable = {'x' * 5000}")
        self.assertIn(repr("x" * 80 + "..."), refusal)
        self.assertLess(len(refusal), 300)


class MySQLTests(ConfigTestCase):
    """Keys of ``[mysql]`` that go together, and those that don't."""

    def test_tls(self) -> None:
        for text, expected in [
            ("", MySQLConfig(ssl_mode="preferred")),
            ("ssl-ca =\nssl-cert =\nssl-key = ", MySQLConfig()),
            ("ssl-mode = disabled", MySQLConfig(ssl_mode="disabled")),
            ("SSL-Mode = Required", MySQLConfig(ssl_mode="required")),
            ("ssl-ca = a", MySQLConfig(ssl_mode="verify-identity", ssl_ca="a")),
            ("ssl-ca = a\nssl-mode = VERIFY_CA", MySQLConfig(ssl_mode="verify-ca", ssl_ca="a")),
            ("ssl-mode = required\nssl-cert = c", MySQLConfig(ssl_mode="required", ssl_cert="c")),
            (
                "ssl-ca = a\nssl-cert = c\nssl-key = k",
                MySQLConfig(ssl_mode="verify-identity", ssl_ca="a", ssl_cert="c", ssl_key="k"),
            ),
        ]:
            self.assertEqual(self.load(f"[mysql]\n{text}").database, expected, text)

    def test_unknown_mode(self) -> None:
        self.assertEqual(
            self.refusal("[mysql]\nssl-mode = strict"),
            "ini: [mysql] ssl-mode is 'strict': it takes disabled, preferred, required, verify-ca "
            "or verify-identity",
        )
        self.assertIn("DALGA_MYSQL_SSL_MODE is ''", self.refusal(None, DALGA_MYSQL_SSL_MODE=""))

    def test_tls_that_does_not_go_together(self) -> None:
        for text, expected in [
            (
                "ssl-mode = verify-ca",
                "ssl-mode is 'verify-ca': it needs ssl-ca, the file with the CA's certificate",
            ),
            (
                "ssl-mode = verify-identity\nssl-ca = ",
                "ssl-mode is 'verify-identity': it needs ssl-ca, the file with the CA's "
                "certificate",
            ),
            *(
                (
                    f"ssl-mode = {mode}\nssl-ca = a",
                    f"ssl-ca is 'a': nothing is checked against it with ssl-mode {mode}, but with "
                    "verify-ca or verify-identity",
                )
                for mode in ("disabled", "preferred", "required")
            ),
            (
                "ssl-ca = a\nssl-key = k",
                "ssl-key is 'k': it needs ssl-cert, the file with its certificate",
            ),
            *(
                (
                    f"{before}ssl-cert = c",
                    f"ssl-cert is 'c': it is not sent with ssl-mode {mode}, but with required, "
                    "verify-ca or verify-identity",
                )
                for before, mode in [
                    ("", "preferred"),
                    ("ssl-mode = disabled\n", "disabled"),
                ]
            ),
        ]:
            self.assertEqual(self.refusal(f"[mysql]\n{text}"), f"ini: [mysql] {expected}")

    def test_socket(self) -> None:
        database = self.load("[mysql]\nsocket = /run/s\nssl-mode = preferred").database
        self.assertEqual(database, MySQLConfig(socket="/run/s"))
        assert isinstance(database, MySQLConfig)
        self.assertEqual(database.servers, ["/run/s"])
        self.assertEqual(self.load("[mysql]\nsocket =\nhost = a").database, MySQLConfig("a"))
        for key, value in [("host", "a"), ("port", "3306")]:
            self.assertEqual(
                self.refusal(f"[mysql]\n{key} = {value}", DALGA_MYSQL_SOCKET="/run/s"),
                f"DALGA_MYSQL_SOCKET is '/run/s': ini: [mysql] {key} says where the server is as "
                "well, leave one of them out",
            )
        self.load("[mysql]\nsocket = /run/s\nssl-ca =\nssl-cert =\nssl-key =\nssl-mode = disabled")

    def test_no_tls_over_a_socket(self) -> None:
        """Whoever asks for it is told that there is none, also where ssl-mode would do without."""
        for text, keys in [
            ("ssl-ca = a", "ssl-ca"),
            *((f"ssl-mode = {mode}\nssl-ca = a", "ssl-ca") for mode in ("disabled", "preferred")),
            ("ssl-mode = verify-ca\nssl-ca = a", "ssl-mode and ssl-ca"),
            ("ssl-mode = required", "ssl-mode"),
            ("ssl-cert = c", "ssl-cert"),
            ("ssl-key = k", "ssl-key"),
            ("ssl-mode = preferred\nssl-cert = c\nssl-key = k", "ssl-cert and ssl-key"),
        ]:
            self.assertEqual(
                self.refusal(f"[mysql]\nsocket = /run/s\n{text}"),
                "ini: [mysql] socket is '/run/s': there is no TLS over a socket, leave "
                f"{keys} out, or give the server's host in its place",
            )


class BaseURLTests(ConfigTestCase):
    #: The platform's CAs take a while to read.
    TRUST = Trust()

    def test_accepted(self) -> None:
        for text in (
            "http://127.0.0.1:5000/",
            "http://127.0.0.1:5000",
            "https://example.org/a/b%20c/",
            "HTTPS://Example.ORG",
            "http://[::1]:80/",
            "http://a_b-c.d:65535/;x=1,2",
        ):
            config = load_config(None, {"DALGA_ENDPOINT_BASEURL": text})
            self.assertEqual(config.endpoint.baseurl, text)

    def test_refused(self) -> None:
        scheme = "it takes a URL that starts with http:// or https://"
        host = "it takes a URL with a host, such as http://127.0.0.1:5000/"
        odd = "can't stand in a URL, percent-encode it (in a host name, use its xn-- form)"
        extra = (
            "it takes a URL without query (?) and fragment (#), as a job's path is put behind it"
        )
        port = "its port can't be used, it takes one from 1 to 65535, or none and no colon"
        unreadable = "its host or port can't be read, it takes a URL such as http://127.0.0.1:5000/"
        percent = "a % in a URL takes two hexadecimal digits after it, write a plain one as %25"
        for text, do in [
            ("", scheme),
            ("127.0.0.1:5000", scheme),
            ("localhost/x", scheme),
            ("ftp://h/", scheme),
            ("file:///etc/passwd", scheme),
            ("//h/", scheme),
            ("http:", host),
            ("http:///x", host),
            ("http://:5000/", host),
            ("http:/h/", host),
            ("http://a,b/", host),
            ("http://a%41/", host),
            ("http://a..b/", host),
            ("http://.a/", host),
            ("http://a'b/", host),
            (f"http://{'x' * 64}/", host),
            ("http://h /", f"U+0020 {odd}"),
            ("http://h\\x/", f"U+005C {odd}"),
            ("http://örnek.com/", f"U+00F6 {odd}"),
            ('http://h/"', f"U+0022 {odd}"),
            ("http://h/?", extra),
            ("http://h/?a=b", extra),
            ("http://h?a", extra),
            ("http://h/#", extra),
            ("http://h#x", extra),
            ("http://h:0/", port),
            ("http://h:/", port),
            ("http://h:65536/", unreadable),
            ("http://[::1/", unreadable),
            ("http://h/%", percent),
            ("http://h/%zz", percent),
        ]:
            self.assertEqual(
                self.refusal(None, DALGA_ENDPOINT_BASEURL=text),
                f"DALGA_ENDPOINT_BASEURL is {text!r}: {do}",
            )
        # This may be a user and a password, and then an / for the @.
        self.assertEqual(
            self.refusal(None, DALGA_ENDPOINT_BASEURL="http://h:x/"),
            f"DALGA_ENDPOINT_BASEURL (not shown): {unreadable}",
        )

    def test_ca(self) -> None:
        """It goes with https alone: who gives one expects that something is checked against it."""
        config = self.load("[endpoint]\nbaseurl = https://h/\nca = ca.pem")
        self.assertEqual(config.endpoint, EndpointConfig("https://h/", 10.0, "ca.pem"))
        self.assertEqual(self.load("[endpoint]\nca =").endpoint, EndpointConfig())
        for before in ("", "baseurl = http://h/\n"):
            self.assertEqual(
                self.refusal(f"[endpoint]\n{before}ca = ca.pem"),
                "ini: [endpoint] ca is 'ca.pem': nothing is checked against it with a baseurl that "
                "starts with http://, but with https://",
            )

    def test_user_info(self) -> None:
        """A user and a password become a header, as in Go's net/http, and leave the URL."""
        for text, baseurl, credentials in [
            ("http://u:s3cret@h/", "http://h/", "u:s3cret"),
            ("https://u:s3cret@[::1]:8443/a%40b", "https://[::1]:8443/a%40b", "u:s3cret"),
            ("HTTP://user@h", "HTTP://h", "user:"),
            ("http://:t0ken@h/", "http://h/", ":t0ken"),
            ("http://u:a:b@h/", "http://h/", "u:a:b"),
            ("http://u%40x.org:p%2Fs%3F%25@h/", "http://h/", "u@x.org:p/s?%"),
            ("http://%C3%BC:%E2%9C%93@h/", "http://h/", "ü:✓"),
            ("http://u@x:p@h/", "http://h/", "u@x:p"),
        ]:
            endpoint = self.load(f"[endpoint]\nbaseurl = {text}").endpoint
            encoded = base64.b64encode(credentials.encode()).decode()
            header = ("Authorization", f"Basic {encoded}")
            self.assertEqual(endpoint, EndpointConfig(baseurl, headers=(header,)))
            for secret in ("s3cret", "t0ken", encoded):
                self.assertNotIn(secret, repr(endpoint))

    def test_bad_user_info(self) -> None:
        """What no server would understand is refused, and its password is not repeated."""
        for text, why in [
            ("http://@h/", "it takes a user name and a password before the @, or no @"),
            ("http://:@h/", "it takes a user name and a password before the @, or no @"),
            ("http://u%3Av:s3cret@h/", "a user name with a colon (%3A) can't be sent, choose ano"),
            ("http://u:s3cret%0D%0A@h/", "its user name or password has a control character"),
            ("http://u%00:s3cret@h/", "its user name or password has a control character"),
            ("http://u:s3cret@/", "it takes a URL with a host"),
            ("http://u:s3cret@h/?x", "it takes a URL without query"),
            ("http://u:s3/cret@h/", "in a user name or a password, write / as %2F, ? as %3F and #"),
            ("http://u:12/cret@h/", "in a user name or a password, write / as %2F, ? as %3F and #"),
            ("http://u:12#cret@h/", "in a user name or a password, write / as %2F, ? as %3F and #"),
            ("http://u:s3?cret@h", "in a user name or a password, write / as %2F, ? as %3F and #"),
            ("http://h/a@cret", "in a user name or a password, write / as %2F, ? as %3F and # as"),
            ("http://u:s3[cret@h/", "its host or port can't be read"),
            ("http://u:s3cret%@h/", "a % in a URL takes two hexadecimal digits"),
            ("ftp://u:s3cret@h/", "it takes a URL that starts with http:// or https://"),
            ("ftp://u:s3cret@h/ x", "U+0020 can't stand in a URL"),
        ]:
            refusal = self.refusal(f"[endpoint]\nbaseurl = {text}")
            self.assertTrue(
                refusal.startswith(f"ini: [endpoint] baseurl (not shown): {why}"), refusal
            )
            self.assertNotIn("cret", refusal)

    @thorough(100)
    @given(st.text("ab01.:[]%@/-_~;fe", max_size=12), st.sampled_from(["http", "https"]))
    def test_the_endpoint_takes_it(self, rest: str, scheme: str) -> None:
        """So what is wrong with a URL is said at the start, not by an endpoint that runs."""
        try:
            config = load_config(None, {"DALGA_ENDPOINT_BASEURL": f"{scheme}://{rest}"})
        except ConfigError:
            return
        service.build_endpoint(Clock(), config.endpoint, self.TRUST, 1, "here", at_epoch)


class HeaderTests(ConfigTestCase):
    """`[endpoint.headers]`: what goes with each POST."""

    GIVEN = (("Authorization", "Bearer a.b-c=="), ("X-Key", "1; a=b"))

    def test_formats(self) -> None:
        """A table in each format, in any case and also inside of [endpoint]."""
        for ending, written in [
            (".ini", '[endpoint.headers]\nAuthorization = Bearer a.b-c==\nX-Key = "1; a=b"'),
            (".ini", '[Endpoint.Headers]\nAuthorization = "Bearer a.b-c=="\nX-Key = 1; a=b'),
            (".toml", "[endpoint.headers]\nAuthorization = 'Bearer a.b-c=='\nX-Key = '1; a=b'"),
            (
                ".toml",
                "[endpoint]\nheaders.Authorization = 'Bearer a.b-c=='\nheaders.X-Key = '1; a=b'",
            ),
            (".toml", "[endpoint]\nheaders = {Authorization = 'Bearer a.b-c==', X-Key = '1; a=b'}"),
            (
                ".yaml",
                "endpoint:\n  headers:\n    Authorization: Bearer a.b-c==\n    X-Key: 1; a=b",
            ),
            (".yaml", "endpoint:\n  headers: {Authorization: Bearer a.b-c==, X-Key: '1; a=b'}"),
        ]:
            self.ending = ending
            config = self.load(written)
            self.assertEqual(config.endpoint, EndpointConfig(headers=self.GIVEN), written)
            self.assertNotIn("a.b-c", repr(config))

    def test_none(self) -> None:
        for ending, written in [
            (".ini", "[endpoint.headers]"),
            (".ini", "[endpoint]\nheaders ="),
            (".toml", "[endpoint.headers]"),
            (".toml", "[endpoint]\nheaders = ''"),
            (".yaml", "endpoint:\n  headers:"),
            (".yaml", "endpoint:\n  headers: {}"),
        ]:
            self.ending = ending
            self.assertEqual(self.load(written, DALGA_ENDPOINT_HEADERS=""), Config(), written)

    def test_variables(self) -> None:
        """One for each header, which goes before the file's of that name."""
        config = self.load(
            "[endpoint.headers]\nauthorization = Bearer a\nX_Key = 2",
            DALGA_ENDPOINT_HEADERS_AUTHORIZATION="Bearer b",
            DALGA_ENDPOINT_HEADERS_X_KEY="3",
            DALGA_ENDPOINT_HEADERS_X_SERVICE_PORT="4",  # nor is it taken for Kubernetes'
        )
        self.assertEqual(
            config.endpoint.headers,
            (
                ("Authorization", "Bearer b"),
                ("X_Key", "2"),
                ("X-Key", "3"),
                ("X-Service-Port", "4"),
            ),
        )
        own = "each header takes a variable of its own, with its name behind DALGA_ENDPOINT_HEADE"
        for name in (
            "DALGA_ENDPOINT_HEADERS",
            *(f"DALGA_ENDPOINT_HEADERS_{x}" for x in ["", "x", "_A", "A-B"]),
        ):
            refusal = self.refusal(None, **{name: "X-Key: s3cret"})
            self.assertTrue(refusal.startswith(f"{name} (not shown): {own}"), refusal)

    def test_names_that_are_not_theirs(self) -> None:
        """What says how the message goes is Dalga's alone, and so is what says which run it is."""
        for name in (
            *MESSAGE_HEADERS,
            *(
                "Host",
                "Content-Length",
                "Transfer-Encoding",
                "Connection",
                "TE",
                "Trailer",
                "Upgrade",
                "Expect",
                "Keep-Alive",
                "Proxy-Connection",
                "Proxy-Authenticate",
                "Proxy-Authorization",
                "Accept-Encoding",
                "Content-Encoding",
                "HTTP2-Settings",
            ),
            *("dalga-run", "Dalga-Sched", "DALGA-ANYTHING"),
        ):
            self.assertEqual(
                self.refusal(f"[endpoint.headers]\n{name} = s3cret"),
                f"ini: [endpoint.headers] {name} (not shown): Dalga sets this header by itself, "
                "leave it out",
            )
        self.assertEqual(
            self.refusal(None, DALGA_ENDPOINT_HEADERS_DALGA_RUN="s3cret"),
            "DALGA_ENDPOINT_HEADERS_DALGA_RUN (not shown): Dalga sets this header by itself, leave "
            "it out",
        )

    def test_what_cannot_be_a_header(self) -> None:
        """Nothing that would end a header, or begin another, and no value in a sentence."""
        for value, why in [
            ("s3cret\r\nX-Y: z", "it has the control character U+000D, leave it out"),
            ("s3cret\n", "it has the control character U+000A, leave it out"),
            ("s3cret\x00", "it has the control character U+0000, leave it out"),
            ("s3\tcret", "it has the control character U+0009, leave it out"),
            ("s3cret\udcff", "it is not UTF-8, write it in UTF-8"),
            ("s3crét", "a header takes ASCII characters, at least one, without spaces around them"),
            (" s3cret", "a header takes ASCII characters, at least one, without spaces around th"),
            ("", "a header takes ASCII characters, at least one, without spaces around them"),
        ]:
            refusal = self.refusal(None, DALGA_ENDPOINT_HEADERS_X_KEY=value)
            expected = f"DALGA_ENDPOINT_HEADERS_X_KEY (not shown): {why}"
            self.assertTrue(refusal.startswith(expected), refusal)
            if "\udcff" not in value:
                self.ending = ".toml"
                refusal = self.refusal(f"[endpoint.headers]\nX-Key = {in_quotes(value)}")
                expected = f"toml: [endpoint.headers] X-Key (not shown): {why}"
                self.assertTrue(refusal.startswith(expected), refusal)

    def test_mistakes(self) -> None:
        """Where it is not quite a table of texts."""
        line = "each header takes a line of its own below [endpoint.headers], or in YAML below"
        name = "ini: [endpoint.headers] has a key that can't be a header's name (not shown)"
        for ending, written, expected in [
            (
                ".ini",
                "[endpoint headers]\nbaseurl = http://elsewhere",
                "ini: [endpoint headers] baseurl is a key of an endpoint and no header, and no",
            ),
            (
                ".ini",
                "[endpoint]\nheaders = X-Key: s3cret",
                f"ini: [endpoint] headers (not shown): {line}",
            ),
            (
                ".toml",
                "[endpoint]\nheaders = ['X-Key: s3cret']",
                f"toml: [endpoint] headers is a list: {line}",
            ),
            (
                ".yaml",
                "endpoint:\n  headers:\n  - X-Key: s3cret",
                f"yaml: [endpoint] headers is a list: {line}",
            ),
            (
                ".yaml",
                "endpoint:\n  headers: 's3cret'",
                f"yaml: [endpoint] headers (not shown): {line}",
            ),
            (
                ".yaml",
                "endpoint:\n  headers:\n    X-Key: [s3cret]",
                "yaml: [endpoint.headers] X-Key is a list: it takes text, so put it in double q",
            ),
            (
                ".yaml",
                "endpoint:\n  headers:\n    X-Key: {s3cret: x}",
                "yaml: [endpoint.headers] X-Key is a table: it takes text, so put it in double q",
            ),
            (
                ".yaml",
                "endpoint:\n  headers:\n    X-Key: 12345678",
                "yaml: [endpoint.headers] X-Key (not shown): it takes text, so put it in double q",
            ),
            (
                ".yaml",
                "endpoint:\n  headers:\n    X-Key: 'a'\n    x-key: 'b'",
                "yaml: [endpoint.headers] x-key is there twice, leave one of them",
            ),
            (
                ".toml",
                "[endpoint.headers]\nX-Key = 'a'\nx-key = 'b'",
                "toml: [endpoint.headers] x-key is there twice, leave one of them",
            ),
            (
                ".ini",
                "[endpoint.headers]\nX-Key = a\nX-KEY = b",
                "ini: [endpoint.headers] X-KEY is there twice, leave one of them",
            ),
            (
                ".ini",
                "[endpoint.headers]\nX: s3cret = a\nX: s3cret = b",
                "ini, line 3: a key of [endpoint.headers] is there twice, leave one of them",
            ),
            (".ini", "[endpoint.headers]\nAuthorization: Basic s3cret==", name),
            (".ini", "[endpoint.headers]\nX Key = s3cret", name),
            (".ini", "[endpoint.headers]\nX-Kéy = s3cret", name),
            (
                ".ini",
                "[endpoint.headers]\nX-Key = a ; s3cret",
                "ini: [endpoint.headers] X-Key (not shown): put it in double quotes, as it has a ;",
            ),
            (
                ".ini",
                '[endpoint.headers]\nX-Key = "s3cret',
                'ini: [endpoint.headers] X-Key (not shown): what starts with " ends with "',
            ),
            (
                ".ini",
                "[endpoint.header]\nX-Key = s3cret",
                "ini: there is no section [endpoint.header], did you mean [endpoint.headers]?",
            ),
            (
                ".ini",
                "[endpoint]\nheader = s3cret",
                "ini: [endpoint] has no key 'header', did you mean headers?",
            ),
        ]:
            self.ending = ending
            refusal = self.refusal(written)
            self.assertTrue(refusal.startswith(expected), refusal)
            self.assertNotIn("s3cret", refusal)

    def test_two_passwords(self) -> None:
        """A baseurl's user and a header of that kind say different things."""
        refusal = self.refusal(
            "[endpoint]\nbaseurl = http://u:s3cret@h/",
            DALGA_ENDPOINT_HEADERS_AUTHORIZATION="Bearer s3cret",
        )
        self.assertEqual(
            refusal,
            "DALGA_ENDPOINT_HEADERS_AUTHORIZATION (not shown): ini: [endpoint] baseurl has a user "
            "name and a password in it, leave one of the two out",
        )


class TargetTests(ConfigTestCase):
    """`[alerts]`, `[alerts ops]` and `[endpoint] alerts`: where alerts are sent."""

    def test_formats(self) -> None:
        ops = AlertsConfig("https://o/T0/?k=1", Format.SLACK, authorization="Basic dTpw")
        for ending, written in [
            (
                ".ini",
                "[alerts]\nurl = http://a/\nheartbeatUrl = http://u:p@h/1\n[Alerts ops]\n"
                "URL = https://u:p@o/T0/?k=1\nformat = Slack\n[endpoint]\nalerts = ops",
            ),
            (
                ".toml",
                "[alerts]\nurl = 'http://a/'\nheartbeatUrl = 'http://u:p@h/1'\n[alerts.ops]\n"
                "url = 'https://u:p@o/T0/?k=1'\nformat = 'slack'\n[endpoint]\nalerts = 'ops'",
            ),
            (
                ".yaml",
                "alerts:\n  url: http://a/\n  heartbeatUrl: http://u:p@h/1\n  ops:\n"
                "    url: https://u:p@o/T0/?k=1\n    format: slack\nendpoint:\n  alerts: ops",
            ),
        ]:
            self.ending = ending
            config = self.load(written)
            basic = "Basic dTpw"
            default = AlertsConfig(
                "http://a/", heartbeat_url="http://h/1", heartbeat_authorization=basic
            )
            self.assertEqual(config.targets, {"default": default, "ops": ops}, written)
            self.assertEqual(config.endpoint.alerts, "ops")
            for secret in ("T0", "k=1", "dTpw", "//h/1"):
                self.assertNotIn(secret, repr(config))

    def test_none(self) -> None:
        """No target: none is made of a heading, nor of a url with nothing behind."""
        for written in ("", "[alerts]", "[alerts]\nurl =\nheartbeatUrl = http://h/"):
            self.assertEqual(self.load(written).targets, {}, written)
        self.assertEqual(self.load("[alerts ops]\nurl = http://o/").alerts, AlertsConfig())

    def test_variables(self) -> None:
        config = self.load(
            "[alerts eu_ops]\nurl = http://o/",
            DALGA_ALERTS_URL="http://a/",
            DALGA_ALERTS_EU_OPS_FORMAT="slack",
            DALGA_ALERTS_TO_BE_URL="http://t/",
            DALGA_ALERTS_PORT="tcp://10.0.0.11:80",
        )
        self.assertEqual(
            config.targets,
            {
                "default": AlertsConfig("http://a/"),
                "eu_ops": AlertsConfig("http://o/", Format.SLACK),
                "to-be": AlertsConfig("http://t/"),
            },
        )
        self.assertEqual(config.links, ("DALGA_ALERTS_PORT",))

    def test_mistakes(self) -> None:
        form = "a target's name takes 1 to 64 lower case letters and digits, with a single - or _"
        for written, sentence in [
            ("[alerts]\nurl = ftp://s3cret", "[alerts] url (not shown): it takes a URL that"),
            ("[alerts]\nurl = http://h/#s3cret", "url (not shown): it takes a URL without"),
            ("[alerts]\nurl = http://h/?a=%s3cret", "url (not shown): a % in a URL takes two hexa"),
            ("[alerts]\nformat = mail", "format is 'mail': it takes standard or slack"),
            ("[alerts]\nurls = http://h/", "[alerts] has no key 'urls', did you mean url?"),
            ("[alert]\nurl = http://h/", "there is no section [alert], did you mean [alerts]?"),
            ("[alerts Ops]\nurl = http://h/", f"[alerts Ops] has the name 'Ops': {form}"),
            ("[alerts none]", "'none': none says that no alerts are sent, choose another name"),
            ("[alerts default]", "'default': the default target has its keys in [alerts], choose"),
            ("[alerts url]", "'url': url is a key of [alerts], choose another name"),
            ("[alerts ops]\n[alerts.ops]", "the target ops is there twice, put its keys together"),
            (
                "[alerts a-b]\nurl = http://h/\n[alerts a_b]",
                "[alerts a_b]: there is a target a-b as well, and their variables would have the",
            ),
            (
                "[alerts ops]\nformat = slack",
                "[alerts ops] format: the target ops has no url, give it one, such as url = https:",
            ),
            (
                "[alerts ops]\nurl = http://h/\nheartbeatUrl = http://h/s3cret",
                "[alerts ops] heartbeatUrl (not shown): it stands in [alerts] alone, move it there",
            ),
            (
                "[alerts ops]\nurl = http://h/\n[endpoint]\nalerts = opps",
                "[endpoint] alerts is 'opps': there is no target of this name, add url = ... to "
                "[alerts opps], or name another one (ops, none)",
            ),
            (
                "[endpoint]\nalerts = default",
                "[endpoint] alerts is 'default': there is no target of this name, add url = ... to "
                "[alerts], or name another one (none)",
            ),
            ("[endpoint]\nalerts = http://h/", "it takes the name of a target, such as ops for"),
        ]:
            refusal = self.refusal(written)
            self.assertIn(sentence, refusal)
            self.assertNotIn("s3cret", refusal)
        for name, sentence in [
            ("DALGA_ALERTS_UR", "is not a variable of Dalga's, did you mean DALGA_ALERTS_URL?"),
            ("DALGA_ALERTS_NONE_URL", "has the name 'none': none says that no alerts are sent"),
            ("DALGA_ALERTS__OPS_URL", "is not a variable of Dalga's"),
        ]:
            self.assertIn(sentence, self.refusal(None, **{name: "http://h/s3cret"}))


class NamedEndpointTests(ConfigTestCase):
    """`[endpoint billing]`, beside `[endpoint]`."""

    BILLING = ("billing", EndpointConfig("http://b:1/in", 5.0, headers=(("X-Key", "1; a=b"),)))
    MAIL = ("eu-mail_2", EndpointConfig("https://m/", ca="ca.pem"))

    def test_formats(self) -> None:
        """Each has all keys, and headers of its own. A key that is left out has its default."""
        for ending, written in [
            (
                ".ini",
                "[endpoint billing]\nbaseurl = http://b:1/in ; of the accounts\ntimeout = 5s\n"
                '[Endpoint billing Headers]\nX-Key = "1; a=b"\n'
                "[endpoint eu-mail_2]\nBaseURL = https://m/\nca = ca.pem\n[endpoint]\ntimeout = 3",
            ),
            (
                ".ini",
                '[endpoint.billing.headers]\nX-Key = "1; a=b"\n[endpoint]\ntimeout = 3\n'
                "[endpoint.billing]\nbaseurl = http://b:1/in\ntimeout = 5s\n"
                "[endpoint.eu-mail_2]\nbaseurl = https://m/\nca = ca.pem\nheaders =",
            ),
            (
                ".toml",
                "[endpoint]\ntimeout = 3\n[endpoint.billing]\nbaseurl = 'http://b:1/in'\n"
                "timeout = '5s'\n[endpoint.billing.headers]\nX-Key = '1; a=b'\n"
                "[endpoint.eu-mail_2]\nbaseurl = 'https://m/'\nca = 'ca.pem'",
            ),
            (
                ".toml",
                "['endpoint billing']\nbaseurl = 'http://b:1/in'\ntimeout = 5\n"
                "headers = {X-Key = '1; a=b'}\n[endpoint]\ntimeout = 3\n"
                "eu-mail_2 = {baseurl = 'https://m/', ca = 'ca.pem'}",
            ),
            (
                ".yaml",
                "endpoint:\n  timeout: 3\n  billing:\n    baseurl: http://b:1/in\n    timeout: 5s\n"
                "    headers:\n      X-Key: 1; a=b\n"
                "  eu-mail_2: {baseurl: 'https://m/', ca: ca.pem, headers: }",
            ),
        ]:
            self.ending = ending
            config = self.load(written)
            self.assertEqual(config.endpoint, EndpointConfig(timeout=3.0), written)
            self.assertEqual(config.named_endpoints, dict([self.BILLING, self.MAIL]), written)
            self.assertEqual([*config.endpoints], ["default", "billing", "eu-mail_2"])
            self.assertNotIn("a=b", repr(config))

    def test_variables(self) -> None:
        """They go before the file, and an endpoint may have nothing but variables."""
        config = self.load(
            "[endpoint eu_mail]\nbaseurl = http://m/\ntimeout = 5\n"
            "[endpoint eu_mail headers]\nX-A = 1",
            DALGA_ENDPOINT_EU_MAIL_TIMEOUT="6",
            DALGA_ENDPOINT_EU_MAIL_HEADERS_X_A="2",
            DALGA_ENDPOINT_TO_BE_BASEURL="http://u:p@t/",
            DALGA_ENDPOINT_TO_BE_HEADERS_X_HEADERS_CA="3",
            DALGA_ENDPOINT_HEADERS_X_BASEURL="4",
            DALGA_ENDPOINT_TIMEOUT="7",
        )
        basic = ("Authorization", "Basic dTpw")
        self.assertEqual(
            config.endpoints,
            {
                "default": EndpointConfig(timeout=7.0, headers=(("X-Baseurl", "4"),)),
                "eu_mail": EndpointConfig("http://m/", 6.0, headers=(("X-A", "2"),)),
                "to-be": EndpointConfig("http://t/", headers=(("X-Headers-Ca", "3"), basic)),
            },
        )

    def test_no_variable_can_be_read_in_two_ways(self) -> None:
        """It ends with its key, so no key may end as another one does."""
        keys = [key.upper().replace("-", "_") for key in KEYS["endpoint"]]
        for key in keys:
            self.assertEqual([each for each in keys if f"_{each}".endswith(f"_{key}")], [key])
            self.assertNotIn("HEADERS", key.split("_"))

    def test_links(self) -> None:
        """A Service may be called dalga-endpoint-billing."""
        links = service_links("dalga-endpoint-billing", "10.0.0.11", (80, "tcp", "http"))
        config = load_config(None, links)
        self.assertEqual(config, Config())
        self.assertEqual({*config.links}, {*links})

    def test_names(self) -> None:
        form = "an endpoint's name takes 1 to 64 lower case letters and digits, with a single"
        for name, why in [
            ("Billing", form),
            ("a--b", form),
            ("-a", form),
            ("a_", form),
            ("é", form),
            ("x" * 65, form),
            ("default", "the default endpoint has its keys in [endpoint], choose another name"),
            ("Default", "the default endpoint has its keys in [endpoint], choose another name"),
            ("ca", "ca is a key of [endpoint], choose another name"),
            ("x-headers-y", "an endpoint's name can't have headers in it, choose another name"),
        ]:
            for heading in (f"[endpoint {name}]", f"[endpoint {name} headers]"):
                refusal = self.refusal(f"{heading}\n")
                self.assertTrue(refusal.startswith(f"ini: [endpoint {name[:60]}"), refusal)
                self.assertIn(f" has the name {name[:60]!r}"[:-1], refusal)
                self.assertIn(f": {why}", refusal)
        self.assertEqual(
            self.refusal(None, DALGA_ENDPOINT_DEFAULT_CA="x"),
            "DALGA_ENDPOINT_DEFAULT_CA has the name 'default': the default endpoint has its keys "
            "in [endpoint], choose another name",
        )
        self.assertEqual(
            [*self.load(f"[endpoint {'x' * 64}]\nbaseurl = http://h/").named_endpoints], ["x" * 64]
        )

    def test_mistakes(self) -> None:
        one = "baseurl = http://h/"
        none = "the endpoint billing has no baseurl, give it one, such as baseurl = https://exam"
        for ending, written, expected in [
            (".ini", "[endpoint billing]\ntimeout = 5", f"ini: [endpoint billing] timeout: {none}"),
            (".ini", "[endpoint billing]", f"[endpoint billing] in ini: {none}"),
            (
                ".ini",
                "[endpoint billing headers]",
                f"[endpoint billing headers] in ini: {none}",
            ),
            (".toml", "[endpoint.billing.headers]", "[endpoint.billing] in toml: the endpoint"),
            (
                ".toml",
                "[endpoint.billing.headers]\nX-Key = 's3cret'",
                f"toml: [endpoint.billing.headers] X-Key: {none}",
            ),
            (
                ".yaml",
                "endpoint:\n  billing:",
                "yaml: [endpoint] has no key 'billing', there is baseurl, timeout, ",
            ),
            (
                ".yaml",
                "endpoint:\n  heder:\n    X-Key: s3cret",
                "yaml: there is no section [endpoint.heder], did you mean [endpoint.headers]?",
            ),
            (
                ".ini",
                f"[endpoint billing]\n{one}\ntimout = 5",
                "ini: [endpoint billing] has no key 'timout', did you mean timeout?",
            ),
            (
                ".toml",
                "[endpoint.billing]\nbaseurl = 'http://h/'\nbaseuri = 'x'",
                "toml: [endpoint.billing] has no key 'baseuri', did you mean baseurl?",
            ),
            (
                ".toml",
                "[endpoint.billing]\nbaseurl = 'http://h/'\neu = {baseurl = 'http://h/'}",
                "toml: [endpoint.billing] has no key 'eu', there is baseurl, timeout, ",
            ),
            (
                ".toml",
                "[endpoint.timeout]\nbaseurl = 'http://h/'",
                "toml: [endpoint] timeout is a table: it takes a duration",
            ),
            (
                ".ini",
                f"[endpoint billing]\n{one}\n[endpoint.billing]\n{one}",
                "ini: the endpoint billing is there twice, put its keys together",
            ),
            (
                ".ini",
                f"[endpoint a-b]\n{one}\n[endpoint a_b]\n{one}",
                "ini: [endpoint a_b]: there is an endpoint a-b as well, and their variables would",
            ),
            (
                ".ini",
                "[endpoint billing eu]",
                "ini: there is no section [endpoint billing eu], there is [jobs], [mysql]",
            ),
            (
                ".ini",
                f"[endpoint billing]\n{one}\nca = x",
                "ini: [endpoint billing] ca is 'x': nothing is checked against it with a baseurl",
            ),
            (
                ".ini",
                f"[endpoint billing]\n{one}\nheaders = X-Key: s3cret",
                "ini: [endpoint billing] headers (not shown): each header takes a line of its own "
                "below [endpoint billing headers], or in YAML",
            ),
            (
                ".ini",
                "[endpoint billing headers]\nX-Key = a ; s3cret",
                "ini: [endpoint billing headers] X-Key (not shown): put it in double quotes, as it",
            ),
        ]:
            self.ending = ending
            refusal = self.refusal(written)
            self.assertTrue(refusal.startswith(expected), refusal)
            self.assertNotIn("s3cret", refusal)

    def test_mistakes_in_variables(self) -> None:
        url = {"DALGA_ENDPOINT_BILLING_BASEURL": "http://h/"}
        not_one = "is not a variable of Dalga's, did you mean"
        for variables, expected in [
            ({"DALGA_ENDPOINT_BILLING_CA": "x"}, "DALGA_ENDPOINT_BILLING_CA: the endpoint billing"),
            (
                {**url, "DALGA_ENDPOINT_BILLING_TIMOUT": "1"},
                f"DALGA_ENDPOINT_BILLING_TIMOUT {not_one} DALGA_ENDPOINT_BILLING_TIMEOUT?",
            ),
            (
                {"DALGA_ENDPOINT_BILLING_BASEURI": "http://h/"},
                f"DALGA_ENDPOINT_BILLING_BASEURI {not_one} DALGA_ENDPOINT_BILLING_BASEURL?",
            ),
            (
                {"DALGA_ENDPOINT_Billing_BASEURL": "http://h/"},
                f"DALGA_ENDPOINT_Billing_BASEURL {not_one} DALGA_ENDPOINT_BILLING_BASEURL?",
            ),
            (
                {"DALGA_ENDPOINT_BILLING_BASE_URL": "http://h/"},
                f"DALGA_ENDPOINT_BILLING_BASE_URL {not_one} DALGA_ENDPOINT_BILLING_BASEURL?",
            ),
            (
                {"DALGA_ENDPOINT__BASEURL": "http://h/"},
                f"DALGA_ENDPOINT__BASEURL {not_one} DALGA_ENDPOINT_BASEURL?",
            ),
            (
                {"DALGA_ENDPOINT_A__B_BASEURL": "http://h/"},
                f"DALGA_ENDPOINT_A__B_BASEURL {not_one} DALGA_ENDPOINT_A_B_BASEURL?",
            ),
            (
                {"DALGA_ENDPOINT__HEADERS_X_KEY": "s3cret"},
                f"DALGA_ENDPOINT__HEADERS_X_KEY {not_one}",
            ),
            (
                {"DALGA_ENDPOINT_TIMOUT": "1"},
                f"DALGA_ENDPOINT_TIMOUT {not_one} DALGA_ENDPOINT_TIMEOUT?",
            ),
            (
                {**url, "DALGA_ENDPOINT_BILLING_HEADERS": "X-Key: s3cret"},
                "DALGA_ENDPOINT_BILLING_HEADERS (not shown): each header takes a variable of its "
                "own, with its name behind DALGA_ENDPOINT_BILLING_HEADERS_, such as DALGA_ENDPOINT",
            ),
        ]:
            refusal = self.refusal(None, **variables)
            self.assertTrue(refusal.startswith(expected), refusal)
            self.assertNotIn("s3cret", refusal)


class RetryTests(ConfigTestCase):
    """`[jobs] retry...`, as the policy that they make."""

    def policy(self, *lines: str) -> RetryPolicy:
        return self.load("\n".join(["[jobs]", *lines])).jobs.retry

    def test_policies(self) -> None:
        def seconds(interval: float, longest: float) -> RetryPolicy:
            return RetryPolicy(
                interval=timedelta(seconds=interval), max_interval=timedelta(seconds=longest)
            )

        for lines, expected in [
            ([], RetryPolicy()),
            (["retryInterval = 60s"], seconds(60, 60)),
            (["retryInterval = 60s", "retryMaxInterval = 60s"], seconds(60, 60)),
            # What is left out gives way.
            (["retryInterval = 5m"], seconds(300, 300)),
            (["retryMaxInterval = 100ms"], seconds(0.1, 0.1)),
            (["retryStopAfter = 0"], RetryPolicy(stop_after=None)),
            (["retryStopAfter = 1ms"], RetryPolicy(stop_after=timedelta(milliseconds=1))),
            # Too short for a timedelta, but not for ever.
            (["retryStopAfter = 0.0000001"], RetryPolicy(stop_after=timedelta(0))),
        ]:
            self.assertEqual(self.policy(*lines), expected, lines)

    def test_shortest_above_longest(self) -> None:
        do = "it takes a duration no shorter than retryInterval, which is 300 s"
        text = "[jobs]\nretryInterval = 5m\nretryMaxInterval = 1m"
        self.assertEqual(self.refusal(text), f"ini: [jobs] retryMaxInterval is '1m': {do}")
        self.assertEqual(
            self.refusal("[jobs]\nretryInterval = 5m", DALGA_JOBS_RETRYMAXINTERVAL="1"),
            f"DALGA_JOBS_RETRYMAXINTERVAL is '1': {do}",
        )
        self.assertEqual(
            self.refusal("[jobs]\nretryMaxInterval = 1m", DALGA_JOBS_RETRYINTERVAL="300"),
            f"ini: [jobs] retryMaxInterval is '1m': {do}",
        )


class GoFileTests(ConfigTestCase):
    """Files of the Go releases, taken as they are, but for a host that is open to all."""

    def test_ini(self) -> None:
        """What releases 1 and 2 could have."""
        written = (
            "[jobs]\nRandomizationFactor = 0.1\nRetryInterval = 60\n"
            "[mysql]\nHost = 127.0.0.1\nPort = 3306\nDB = test\nTable = dalga\nUser = root\n"
            "Password =\nMaxOpenConns = 50\nSkipLocked = true\n"
            "[listen]\nHost = 0.0.0.0\nPort = 34006\n"
            "[endpoint]\nBaseURL = http://127.0.0.1:5000/\nTimeout = 10\n"
        )
        self.assertIn("[listen] host is '0.0.0.0': anybody who can", self.refusal(written))
        config = self.load(written, DALGA_LISTEN_ALLOWUNAUTHENTICATED="yes")
        self.assertEqual(config.notes, ())
        self.assertEqual(config.jobs.randomization_factor, 0.1)
        self.assertEqual(config.jobs.retry.interval, timedelta(minutes=1))
        self.assertEqual(config.database, MySQLConfig(max_open_conns=50))
        self.assertEqual(config.listen, ListenConfig("0.0.0.0", allow_unauthenticated=True))
        self.assertEqual(config.endpoint.timeout, 10.0)

    def test_toml(self) -> None:
        """All that release 4 knows, with its defaults."""
        self.ending = ".toml"
        path = self.write(
            """
            [jobs]
            randomizationFactor = 0.0
            retryInterval = "60s"
            retryMultiplier = 1
            retryMaxInterval = "1m"
            retryStopAfter = "0s"
            fixedIntervals = false
            scanFrequency = "1s"
            maxRunning = 100
            [mysql]
            host = "127.0.0.1"
            port = 3306
            db = "test"
            table = "dalga"
            user = "root"
            password = ""
            maxOpenConns = 50
            skipLocked = true
            transactionIsolationParamName = "transaction_isolation"
            dialTimeout = "30s"
            readTimeout = "30s"
            writeTimeout = "30s"
            [listen]
            host = "127.0.0.1"
            port = 34006
            shutdownTimeout = "20s"
            idleTimeout = "60s"
            readTimeout = "10s"
            writeTimeout = "10s"
            [endpoint]
            baseurl = "http://127.0.0.1:5000/"
            timeout = "10s"
            """
        )
        config = load_config(path, {})
        minute = timedelta(minutes=1)
        self.assertEqual(
            config,
            Config(
                JobsConfig(
                    fixed_intervals=False,
                    retry=RetryPolicy(interval=minute, multiplier=1.0, max_interval=minute),
                    shutdown_timeout=20.0,
                ),
                MySQLConfig(
                    max_open_conns=50, dial_timeout=30.0, read_timeout=30.0, write_timeout=30.0
                ),
                ListenConfig(read_timeout=10.0),
            ),
        )
        self.assertEqual(
            [note.replace(path, "toml") for note in config.notes],
            [
                "toml: [mysql] transactionIsolationParamName is ignored: Dalga finds out by itself "
                "what the server calls it",
                "toml: [listen] writeTimeout is ignored: an answer is there within 5 s, and who "
                "does not take it is cut off by idleTimeout",
            ],
        )

    def test_skip_locked(self) -> None:
        """It is what Dalga does; that it was asked not to is worth a sentence."""
        for text, noted in [("true", 0), ("TRUE", 0), ("false", 1)]:
            self.assertEqual(len(self.load(f"[mysql]\nskipLocked = {text}").notes), noted)
        self.assertEqual(
            load_config(None, {"DALGA_MYSQL_SKIPLOCKED": "false"}).notes,
            (
                "DALGA_MYSQL_SKIPLOCKED is ignored: Dalga passes over rows that somebody has "
                "locked in any case",
            ),
        )

    def test_elsewhere(self) -> None:
        """Where the Go releases have a key is as good, but not both places at once."""
        text = "[listen]\nShutdownTimeout = 3"
        self.assertEqual(self.load(text).jobs.shutdown_timeout, 3.0)
        for variable in ("DALGA_JOBS_SHUTDOWNTIMEOUT", "DALGA_LISTEN_SHUTDOWNTIMEOUT"):
            for name in ("jobs", "listen"):
                text = f"[{name}]\nshutdownTimeout = 3"
                self.assertEqual(self.load(text, **{variable: "4"}).jobs.shutdown_timeout, 4.0)
        self.assertEqual(
            self.refusal("[jobs]\nshutdownTimeout = 3\n[listen]\nshutdownTimeout = 3"),
            "ini: [jobs] shutdownTimeout and ini: [listen] shutdownTimeout say the same, leave one "
            "of them",
        )
        self.assertEqual(
            self.refusal(None, DALGA_JOBS_SHUTDOWNTIMEOUT="3", DALGA_LISTEN_SHUTDOWNTIMEOUT="4"),
            "DALGA_JOBS_SHUTDOWNTIMEOUT and DALGA_LISTEN_SHUTDOWNTIMEOUT say the same, leave one "
            "of them",
        )
        self.assertEqual(
            self.refusal("[listen]\nshutdownTimeout = soon"),
            "ini: [listen] shutdownTimeout is 'soon': it takes a duration from 0 to 1h, in seconds "
            "(10, 2.5), with a unit (500ms, 10s, 5m, 1h30m), or as ISO 8601 has it without "
            "years and months (PT5M)",
        )

    def test_not_among_ours(self) -> None:
        """Else one of the two would never be read."""
        ours = {(section, key) for section in KEYS for key in KEYS[section]}
        self.assertEqual(ours & {*ELSEWHERE, *UNNEEDED}, set())
        self.assertEqual(set(ELSEWHERE.values()) - ours, set())


def plain(low: int, high: int) -> st.SearchStrategy[Given]:
    return st.integers(low, high).map(lambda number: (True, str(number)))


def text(*examples: str) -> st.SearchStrategy[Given]:
    return st.sampled_from(examples).map(lambda example: (False, example))


def fraction(low: int, high: int) -> st.SearchStrategy[Given]:
    return st.integers(low * 100, high * 100).map(lambda number: (True, f"{number / 100}"))


def duration(low: int, high: int) -> st.SearchStrategy[Given]:
    """Seconds, as a number, with a unit, or as ISO 8601 has it."""
    return st.integers(low, high).flatmap(
        lambda seconds: st.sampled_from(
            [(True, str(seconds)), (True, f"{seconds}.0"), (False, f"{seconds}s")]
            + [(False, f"PT{seconds}S"), (False, f"pt{seconds // 60}m{seconds % 60}s")]
            + ([(False, f"{seconds // 60}m{seconds % 60}s")] if seconds >= 60 else [])
        )
    )


boolean = st.sampled_from([(True, "true"), (True, "false"), (False, "off"), (False, "TRUE")])
#: But for control characters, of which C1's are taken.
any_text = st.text(
    st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)
anything = any_text.map(lambda drawn: (False, drawn))

ANY_VALUE: dict[str, dict[str, st.SearchStrategy[Given]]] = {
    "jobs": {
        "randomizationFactor": fraction(0, 1),
        "fixedIntervals": boolean,
        "retryInterval": duration(1, 3600),
        "retryMultiplier": fraction(1, 100),
        "retryMaxInterval": duration(3600, 8760 * 3600),
        "retryJitter": fraction(0, 1),
        "retryStopAfter": duration(0, 8760 * 3600),
        "maxRunning": plain(1, 10_000),
        "scanFrequency": duration(1, 3600),
        "shutdownTimeout": duration(0, 3600),
        "workers": plain(1, 1),
        "maxPayload": plain(1, 1024 * 1024) | text("64KiB", "1 MiB"),
    },
    "mysql": {
        "host": text("db.example", "10.0.0.1", "::1", "a, b:3307"),
        "port": plain(1, 65535),
        "socket": text("", "/run/mysqld/mysqld.sock"),
        "db": anything,
        "table": st.text(string.ascii_letters + "_$-", min_size=1, max_size=53).map(
            lambda drawn: (False, drawn)
        ),
        "user": anything,
        "password": anything,
        "maxOpenConns": plain(0, 10_000),
        "dialTimeout": duration(1, 300),
        "readTimeout": duration(2, 300),
        "writeTimeout": duration(2, 300),
        "ssl-mode": text("verify-ca", "VERIFY-IDENTITY"),
        "ssl-ca": text("/etc/ca.pem"),
        "ssl-cert": text("", "/etc/dalga.pem"),
        "ssl-key": text(""),
    },
    "sqlite": {"path": anything},
    "listen": {
        "host": text("0.0.0.0", "::", "localhost"),
        "port": plain(0, 65535),
        "idleTimeout": duration(1, 3600),
        "readTimeout": duration(1, 3600),
        "endpoint": text("", "tcp:1", "ssl:1:privateKey=a:certKey=b, unix:/run/d.sock"),
        "hosts": text("", "a.example, fd00::5"),
        "origins": text("", "https://A.example:443,http://localhost:1"),
        "rootPath": text("", "/a/b"),
        "trustedProxies": text("", "10.0.0.5, fd00::/8"),
        "allowUnauthenticated": st.just((True, "true")),
    },
    "endpoint": {
        "baseurl": text("http://h/", "https://example.org:8443/a/%20"),
        "timeout": duration(1, 3600),
        "ca": text("/etc/ca.pem"),
        "success": text("200", "200-299, 404"),
        "gone": text("none", "204,410"),
        "giveUp": text("none", "400-499"),
        "alerts": text("", "none"),
        "secrets": text("", SIGNING, f"{SIGNING_TOO},{SIGNING}"),
        "auth": text("none"),
        "authUser": text(""),
        "authSecret": text(""),
        "cert": text(""),
        "key": text(""),
        "verifyName": text(""),
        "deny": text("none", "NONE"),
        "proxy": text("", "http://u:p@proxy.example:3128/"),
    },
    "alerts": {
        "url": text("", "http://h/a?b=c", "https://u:p@example.org:8443/"),
        "format": text("standard", "SLACK"),
        "heartbeatUrl": text("", "http://h/1"),
        "secrets": text("", SIGNING),
    },
    "history": {
        "mode": text("all", "failures", "OFF"),
        "keep": duration(60, 3650 * 86400) | text("7d", "1.5d"),
        "keepFailed": duration(60, 3650 * 86400),
        "maxRows": plain(1, 10_000_000_000),
    },
    "audit": {"keep": duration(60, 3650 * 86400)},
    "log": {"format": text("text", "JSON"), "level": text("debug", "Warn")},
    "metrics": {"paths": plain(0, 10_000), "listen": text("", "[::]:9464")},
}


#: What files are made of.
PIECES = [
    *(
        "\n",
        "\n",
        "\n  ",
        "\n\t",
        "\r",
        " ",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ": ",
        "=",
        " = ",
        "#",
        " ;",
    ),
    *(
        "mysql",
        "jobs",
        "listen",
        "[mysql]",
        "[jobs]\n",
        "mysql:\n",
        "jobs:\n  ",
        "host",
        "port",
        "1",
    ),
    *("password", "password = s3cret", "password: s3cret", "password = 's3cret'", '"s3cret"'),
    *(
        "maxRunning = 7",
        "maxRunning: 7",
        "retryInterval",
        "10s",
        "true",
        "null",
        "2021-01-01",
        "0x1",
    ),
    *(
        "'",
        '"',
        "\\",
        "&a ",
        "*a",
        '"\\U00110000"',
        '"\\UFFFFFFFF"',
        '"\\uD800"',
        "!",
        "!!int ",
        "- ",
        "? ",
        "---",
        "...",
        "%YAML 1.1\n",
        "<<",
        "|\n",
    ),
]


#: A file with each key, but of one database: what mutants are made of.
WHOLE: dict[str, dict[str, Given]] = {
    section: {
        key: (re.fullmatch(r"[0-9.]+|false", written) is not None, written)
        for within, key, written, *_ in EVERY_KEY
        if within == section
    }
    for section in KEYS
    if section != "sqlite"
}


@st.composite
def mutants(draw: st.DrawFn, whole: str) -> bytes:
    """A file that is nearly right."""
    pieces = st.sampled_from(PIECES) | st.text(max_size=3)
    lines = whole.split("\n")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "move", "value", "join"])):
            case "drop":
                del lines[at : at + 1 + other % 3]
                lines = lines or [""]
            case "double":
                lines.insert(other, lines[at])
            case "move":
                lines[at], lines[other] = lines[other], lines[at]
            case "value":
                lines[at] = re.sub(r"(?<=[=:] ).*", lambda _: draw(pieces), lines[at])
            case "join":
                lines[at] += draw(st.sampled_from([" ", ", ", " = ", " # "])) + lines[other].strip()
    octets = "\n".join(lines).encode()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(octets)))
        piece = draw(pieces.map(str.encode) | st.binary(max_size=2))
        octets = octets[:at] + piece + octets[at + draw(st.sampled_from([0, 0, 1, 2, 9])) :]
    return octets


#: Where a sentence says that what it is about stands.
PLACE = re.compile(
    r"FILE(, line \d+|, at its end)?: "
    r"((this is|what [&!]|a second|a section or a key|a list can't|a table can't|lists or tables) "
    r"|\[[\w. ]+\] ([\w-]+ |has no key (['\"]|of that name)"
    r"|has a key that can't be a header's name)"
    r"|\[endpoint\b.*\] has the name '"
    r"|a key of \[[^]]+\] is there twice|there is no section \["
    r"|the section \[[\w.]+\] is there twice|.* is .*, not a section)"
    r"|FILE: \[\w+\] [\w-]+ and FILE: \[\w+\] [\w-]+ say the same"
    r"|FILE is not UTF-8 text \(byte \d+\)"
    r"|\[mysql\] in FILE and \[sqlite\] in FILE each choose"
)


@st.composite
def any_sections(draw: st.DrawFn) -> dict[str, dict[str, Given]]:
    """Some of the sections, with some of their keys, in any case."""
    without = draw(st.sampled_from(["mysql", "sqlite"]))
    chosen = {}
    cases: list[Callable[[str], str]] = [str, str.lower, str.upper]
    for name, keys in ANY_VALUE.items():
        if name != without and draw(st.booleans()):
            case = draw(st.sampled_from(cases))
            some = draw(st.fixed_dictionaries({}, optional=keys))
            if "socket" in some:
                for key in ("host", "port", "ssl-mode", "ssl-ca", "ssl-cert"):
                    some.pop(key, None)
            elif "ssl-ca" not in some:
                some.pop("ssl-mode", None)
                some.pop("ssl-cert", None)
            if not str(some.get("baseurl")).startswith("https"):
                some.pop("ca", None)
            if name == "listen" and {"host", "endpoint"} & {*some}:
                some["allowUnauthenticated"] = (True, "true")
            chosen[case(name)] = {case(key): value for key, value in some.items()}
    return chosen


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high) | st.integers(int(low * 1000), int(high * 1000)).map(
        lambda milliseconds: milliseconds / 1000
    )


#: Sets of the statuses of answers.
statuses = st.lists(st.integers(200, 599).map(lambda status: (status, status)), max_size=9).map(
    Statuses.of
)

YEAR = timedelta(days=365)
MILLISECOND = timedelta(milliseconds=1)

#: A configuration, as a program may choose it.
configs = st.builds(
    Config,
    jobs=st.builds(
        JobsConfig,
        randomization_factor=st.floats(0, 1),
        fixed_intervals=st.booleans(),
        retry=st.lists(st.timedeltas(MILLISECOND, YEAR), min_size=2, max_size=2).flatmap(
            lambda waits: st.builds(
                RetryPolicy,
                interval=st.just(min(waits)),
                multiplier=st.floats(1, 100),
                max_interval=st.just(max(waits)),
                jitter=st.floats(0, 1),
                stop_after=st.none() | st.timedeltas(timedelta(microseconds=1), YEAR),
            )
        ),
        max_running=st.integers(1, 10_000),
        scan_frequency=seconds(0.001, 3600),
        shutdown_timeout=seconds(0, 3600),
    ),
    database=st.builds(SQLiteConfig, path=any_text.filter(lambda path: path != ":memory:"))
    | st.builds(
        MySQLConfig,
        host=st.sampled_from(["db.example", "10.0.0.1", "::1", "örnek.com"]),
        port=st.integers(1, 65535),
        db=any_text,
        table=st.text(string.ascii_letters + string.digits + "_$-", min_size=1, max_size=53),
        user=any_text,
        password=any_text | st.just(""),
        max_open_conns=st.integers(0, 10_000),
        dial_timeout=seconds(0.1, 300),
        read_timeout=seconds(2, 300),
        write_timeout=seconds(2, 300),
    ),
    listen=st.builds(
        ListenConfig,
        host=st.sampled_from(["0.0.0.0", "::", "fe80::1%eth0"]),
        port=st.integers(0, 65535),
        idle_timeout=seconds(1, 3600),
        read_timeout=seconds(1, 3600),
        allow_unauthenticated=st.just(True),
    ),
    endpoint=st.builds(
        EndpointConfig,
        baseurl=st.sampled_from(["http://h", "https://example.org:8443/a/%20"]),
        timeout=seconds(0.001, 3600),
        answers=st.builds(
            Answers, success=statuses.filter(lambda found: found.ranges), gone=statuses
        ),
        alerts=st.sampled_from(["", "none"]),
    ),
    alerts=st.builds(
        AlertsConfig,
        url=st.sampled_from(["", "https://example.org:8443/a/%20?b=c"]),
        format=st.sampled_from(Format),
        heartbeat_url=st.sampled_from(["", "http://h/1"]),
    ),
    log=st.builds(LogConfig, format=st.sampled_from(LogFormat), level=st.sampled_from(LogLevel)),
)


def spelled(value: Any) -> Given:
    """A value as it is written into a file."""
    match value:
        case str():
            return False, value
        case bool():
            return True, str(value).lower()
        case timedelta():
            return spelled(value.total_seconds())
        case Statuses() | IPv4Network() | IPv6Network():
            return False, str(value)
        case (str() as host, int() as port):
            return False, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return False, ", ".join(spelled(each)[1] for each in value)
        case None:
            return False, ""
    return True, f"{Decimal(repr(value)):f}"  # without an exponent


class FormatTests(ConfigTestCase):
    """One configuration in three formats."""

    def test_statuses(self) -> None:
        """A set of statuses is a text or a number; in TOML and YAML, a list of both, too."""
        of = statuses_from_text
        for ending, text, answers in (
            (".ini", "success = 200-299 ; all\ngone = None", Answers(of("200-299"), of("none"))),
            (".ini", 'giveUp = "400,404-499"', Answers(give_up=of("400,404-499"))),
            (".toml", "success = 201\ngone = []", Answers(of("201"), of("none"))),
            (".toml", "success = [200, '202-204']", Answers(of("200,202-204"))),
            (".yaml", "success: 201\n  gone: []", Answers(of("201"), of("none"))),
            (".yaml", "success: 200,202\n  giveUp: none", Answers(of("200,202"))),
            (".yaml", "success:\n  - 200\n  - 202-204", Answers(of("200,202-204"))),
        ):
            self.ending = ending
            section = "endpoint:\n  " if ending == ".yaml" else "[endpoint]\n"
            self.assertEqual(self.load(section + text).endpoint.answers, answers, text)
        takes = "it takes statuses from 200 to 599 and ranges, such as 200, 200-299 or 200,202"
        for ending, text, why in (
            (".ini", "success = none", f"is 'none': it has 'none', which is no status; {takes}"),
            (".ini", "success =", f"is '': it has '', which is no status; {takes}"),
            (".ini", "gone = 404-400", "is '404-400': it has '404-400', whose end is before its s"),
            (".ini", "giveUp = 4xx", "is '4xx': it has '4xx', which is no status (4xx is 400-499)"),
            (".toml", "success = 200.5", "is '200.5': it has '200.5', which is no status"),
            (".toml", "success = true", f"is 'true': {takes}"),
            (".toml", "success = []", f"is a list: it has '', which is no status; {takes}"),
            (".toml", "success = [200, 99]", "is a list: it has '99', which is no status"),
            (".toml", "gone = [[204]]", "is a list: it has other elements than text and numbers"),
            (".yaml", "gone: [204, {a: b}]", "is a list: it has other elements than text and numb"),
            (".yaml", "gone: [204, true]", "is a list: it has other elements than text and numb"),
            (".yaml", "gone: {a: b}", f"is a table: {takes}, or none"),
            (".yaml", "gone:", f"is nothing: {takes}, or none"),
        ):
            self.ending = ending
            section = "endpoint:\n  " if ending == ".yaml" else "[endpoint]\n"
            error = str(self.assertRaises(ConfigError, self.load, section + text))
            self.assertIn(f"[endpoint] {re.split('[ :]', text)[0]} {why}", error)

    def test_a_list_is_no_value_of_another_key(self) -> None:
        for text in ("[jobs]\nmaxRunning = [7]", "[jobs]\nretryJitter = [1]"):
            self.ending = ".toml"
            error = str(self.assertRaises(ConfigError, self.load, text))
            self.assertIn("is a list: it takes a", error)

    def test_whole(self) -> None:
        """Else a key would be left out of the property below."""
        for section, keys in KEYS.items():
            self.assertEqual(tuple(ANY_VALUE[section]), keys)

    @thorough(100)
    @given(any_sections())
    def test_equal(self, sections: dict[str, dict[str, Given]]) -> None:
        """The formats say the same, and so do variables over the empty sections."""
        configs = []
        for ending, render in FORMATS:
            self.ending = ending
            configs.append(self.load(render(sections)))
        variables = {
            as_variable(section, key): text
            for section, keys in sections.items()
            for key, (_, text) in keys.items()
        }
        configs.append(self.load(as_yaml({section: {} for section in sections}), **variables))
        self.assertEqual(configs, configs[:1] * 5)

    @thorough(150)
    @given(configs)
    def test_written_and_read(self, config: Config) -> None:
        """Any configuration can be written down."""
        sections: dict[str, dict[str, Given]] = {}
        of_database = "mysql" if isinstance(config.database, MySQLConfig) else "sqlite"
        for section, key, _, attribute, _ in EVERY_KEY:
            if section not in ("mysql", "sqlite") or section == of_database:
                value = operator.attrgetter(attribute)(part(config, section))
                if key == "retryStopAfter" and value is None:  # never
                    value = 0
                sections.setdefault(section, {})[key] = spelled(value)
        for ending, render in FORMATS:
            self.ending = ending
            self.assertEqual(self.load(render(sections)), config)

    def read_or_refused(self, content: bytes) -> None:
        """Anything else is an error of ours."""
        path = self.write(content)
        try:
            config = load_config(path, {})
        except ConfigError as error:
            for sentence in error.mistakes:
                sentence = sentence.replace(path, "FILE")
                self.assertTrue(sentence.isprintable() and len(sentence) < 400, sentence)
                self.assertRegex(sentence, PLACE)
        else:
            self.assertIsInstance(config, Config)

    @thorough(200)
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
    def test_any_text(self, text: str) -> None:
        """Whatever a file has in it is read, or refused in one sentence that says where."""
        for ending, _ in FORMATS:
            self.ending = ending
            self.read_or_refused(text.encode())

    @thorough(300)
    @given(st.data())
    def test_mutants(self, data: st.DataObject) -> None:
        """So is what is nearly right."""
        for ending, whole in [
            (".ini", EXAMPLE.read_text()),
            (".ini", as_ini(WHOLE)),
            (".ini", f"{as_ini(WHOLE)}\n[endpoint.headers]\nX-Key = 7"),
            (".toml", as_toml(WHOLE)),
            (".toml", f"{as_toml(WHOLE)}\n[endpoint.headers]\nX-Key = '7'"),
            (".yaml", as_yaml(WHOLE)),
            (".yaml", f"{as_yaml(WHOLE)}\n  headers:\n    X-Key: '7'"),
        ]:
            self.ending = ending
            self.read_or_refused(data.draw(mutants(whole)))

    def test_every_key(self) -> None:
        """In each format, and in any case; a number may be in quotes as well."""
        for ending, render in FORMATS:
            self.ending = ending
            for section, key, written, attribute, value in EVERY_KEY:
                number = re.fullmatch(r"[0-9.]+|false", written) is not None
                beside = {name: (False, text) for name, text in BESIDE.get(key, {}).items()}
                for spelling in (key, key.lower(), key.upper()):
                    for plain in {number, False}:
                        given = {**beside, spelling: (plain, written)}
                        server = {"mysql": {"db": (False, "x")}} if key in ON_SERVERS else {}
                        config = self.load(render({**server, section: given}))
                        got = operator.attrgetter(attribute)(part(config, section))
                        self.assertEqual(got, written if value is ... else value, (ending, key))

    def test_empty(self) -> None:
        """Nothing is the defaults; an empty section is there all the same."""
        for ending, texts, section in [
            (".ini", ("", "\n", "; x", "\ufeff"), "[mysql]"),
            (".toml", ("", "\n", "# x", "\ufeff"), "[mysql]"),
            (".yaml", ("", "\n", "# x", "\ufeff", "---", "---\n...", "null", "{}"), "mysql:"),
            (".yaml", (), "mysql: {}"),
        ]:
            self.ending = ending
            for empty in texts:
                self.assertEqual(self.load(empty), Config(), (ending, empty))
            self.assertEqual(self.load(section), Config(database=MySQLConfig()))

    def test_variable_before_file(self) -> None:
        """Also where the file's own value won't do."""
        for ending, render in FORMATS:
            self.ending = ending
            sections = {"listen": {"host": (False, "::1"), "port": (True, "99999")}}
            config = self.load(render(sections), DALGA_LISTEN_PORT="3")
            self.assertEqual(config.listen, ListenConfig("::1", 3))

    def test_same_sentences(self) -> None:
        """What can be said in all three is refused in the same words."""
        cases: list[tuple[dict[str, dict[str, Given]], str]] = [
            (
                {"jobs": {"maxRunning": (True, "0")}},
                "[jobs] maxRunning is '0': it takes a whole number from 1 to 10000",
            ),
            (
                {"jobs": {"randomizationFactor": (True, "1.5")}},
                "[jobs] randomizationFactor is '1.5': it takes a number from 0 to 1, such as 0.25",
            ),
            (
                {"jobs": {"scanFrequency": (True, "true")}},
                "[jobs] scanFrequency is 'true': it takes a duration from 1ms to 1h, in seconds "
                "(10, 2.5), with a unit (500ms, 10s, 5m, 1h30m), or as ISO 8601 has it without "
                "years and months (PT5M)",
            ),
            (
                {"jobs": {"fixedIntervals": (True, "2")}},
                "[jobs] fixedIntervals is '2': it takes true or false",
            ),
            (
                {"mysql": {"password": (False, "s3\x01cret")}},
                "[mysql] password (not shown): it has the control character U+0001, leave it out",
            ),
            (
                {"mysql": {"host": (False, "a"), "HOST": (False, "a")}},
                "[mysql] host is there twice, leave one of them",
            ),
            (
                {"jobs": {}, "Jobs": {}},
                "the section [jobs] is there twice, put its keys together",
            ),
            (
                {"mysql": {"pasword": (False, "x")}},
                "[mysql] has no key 'pasword', did you mean password?",
            ),
            ({"msql": {"host": (False, "x")}}, "there is no section [msql], did you mean [mysql]?"),
        ]
        for sections, expected in cases:
            for ending, render in FORMATS:
                self.ending = ending
                written = render(sections)
                if ending != ".ini":
                    written = written.replace("\x01", "\\u0001")
                self.assertEqual(self.refusal(written), f"{ending[1:]}: {expected}")

    def test_two_databases(self) -> None:
        for ending, render in FORMATS:
            self.ending = ending
            self.assertIn(
                "each choose a database", self.refusal(render({"mysql": {}, "sqlite": {}}))
            )

    def test_not_utf8(self) -> None:
        for ending, what in [(".ini", "an ini"), (".toml", "a TOML"), (".yaml", "a YAML")]:
            self.ending = ending
            self.assertEqual(
                self.refusal("# jöb".encode("latin-1")),
                f"{ending[1:]} is not UTF-8 text (byte 3): it takes {what} file",
            )

    def test_size(self) -> None:
        """A file that is none, such as a device or a dump, is not read to its end."""
        for ending in (".ini", ".toml", ".yaml"):
            self.ending = ending
            self.assertEqual(self.load("#" * MAX_FILE), Config())
            for content in (b"#" * (MAX_FILE + 1), "ş".encode() * MAX_FILE):
                self.assertEqual(
                    self.refusal(content),
                    f"{ending[1:]} is too large for a configuration file: it takes 65536 bytes at "
                    "most",
                )
        error = self.assertRaises(ConfigError, load_config, "/dev/zero", {})
        self.assertIn("/dev/zero is too large", str(error))


class TomlTests(ConfigTestCase):
    ending = ".toml"

    def test_layout(self) -> None:
        """Whatever TOML has for it."""
        for written in (
            "[mysql]\r\nhost = 'db'\r\nport = 3_307",
            "mysql = {host = 'db', port = 3307}",
            "mysql.host = 'db'\nmysql.port = 0xceb",
            '[mysql]\nhost = """\ndb"""\nport = \'3307\'',
            '["mysql"]\n"host" = "\\u0064b"\nport = 3307 # x',
        ):
            self.assertEqual(self.load(written).database, MySQLConfig("db", 3307), written)

    def test_not_toml(self) -> None:
        """The line is named, and never shown."""
        for written, where in [
            ("[mysql]\npassword = s3cret", "line 2"),
            ("[mysql]\npassword = 's3cret", "at its end"),
            ("[mysql]\npassword = 's3cret\nuser = 'x'", "line 2"),
            ("[mysql]\npassword: 's3cret'", "line 2"),
            ("[mysql]\npassword = 's3cret' user = 'x'", "line 2"),
            ('[mysql]\n\npassword = "s3\\cret"', "line 3"),
            ("; s3cret", "line 1"),
            ("s3cret", "at its end"),
            ("[mysql\ns3cret = 1", "line 1"),
            ("a = \x00", "line 1"),
            ("[mysql]\npassword = 2021-02-31", "line 2"),
        ]:
            self.assertEqual(
                self.refusal(written),
                f"toml, {where}: this is not TOML, which has [section] lines, key = value "
                "lines below them, and text in double quotes",
                written,
            )

    def test_twice(self) -> None:
        for written, where in [
            ("[mysql]\nhost = 'a'\nhost = 'a'", "at its end"),
            ("[mysql]\nhost = 'a'\nhost = 'a'\n", "line 3"),
            ("[mysql]\n[jobs]\n[mysql]", "line 3"),
            ("mysql = {host = 'a', host = 'b'}", "line 1"),
            ("['(at line 9']\n['(at line 9']\n", "line 2"),
            ("[[mysql]]\n[mysql]", "line 2"),
        ]:
            self.assertEqual(
                self.refusal(written),
                f"toml, {where}: a section or a key is there twice, leave one of them",
                written,
            )

    def test_kinds(self) -> None:
        """What is of another kind than it has to be."""
        text = "it takes text, so put it in double quotes"
        number = "it takes a whole number from 1 to 65535"
        span = (
            "it takes a duration from 1ms to 1h, in seconds (10, 2.5), with a unit (500ms, 10s, "
            "5m, 1h30m), or as ISO 8601 has it without years and months (PT5M)"
        )
        for section, key, value, expected in [
            ("mysql", "db", "123", f"is '123': {text}"),
            ("mysql", "db", "1.50", f"is '1.50': {text}"),
            ("mysql", "db", "true", f"is 'true': {text}"),
            ("mysql", "db", "2021-01-01", f"is a date or a time: {text}"),
            ("mysql", "db", "['x']", f"is a list: {text}"),
            ("mysql", "db", "{x = 1}", f"is a table: {text}"),
            ("mysql", "password", "123", f"(not shown): {text}"),
            ("mysql", "password", "['s3cret']", f"is a list: {text}"),
            ("mysql", "password", "{s3cret = 's3cret'}", f"is a table: {text}"),
            ("mysql", "port", "true", f"is 'true': {number}"),
            ("mysql", "port", "3306.0", f"is '3306.0': {number}"),
            ("mysql", "port", "[3306]", f"is a list: {number}"),
            ("mysql", "port", "{}", f"is a table: {number}"),
            ("mysql", "port", "12:00:00", f"is a date or a time: {number}"),
            ("mysql", "port", "-1", f"is '-1': {number}"),
            ("mysql", "port", "0xFFFFF", f"is '1048575': {number}"),
            ("endpoint", "timeout", "00:00:10", f"is a date or a time: {span}"),
            ("endpoint", "timeout", "1e1", f"is '1e1': {span}"),
            ("endpoint", "timeout", "inf", f"is 'inf': {span}"),
            ("endpoint", "timeout", "10_000_000_000", f"is '10000000000': {span}"),
            ("jobs", "fixedIntervals", "[]", "is a list: it takes true or false"),
            ("jobs", "fixedIntervals", "1.0", "is '1.0': it takes true or false"),
            (
                "jobs",
                "retryMultiplier",
                "nan",
                "is 'nan': it takes a number from 1 to 100, such as 1.5",
            ),
        ]:
            self.assertEqual(
                self.refusal(f"[{section}]\n{key} = {value}"),
                f"toml: [{section}] {key} {expected}",
            )

    def test_tables(self) -> None:
        where = "keys stand in sections, such as host in mysql"
        for written, expected in [
            ("host = 's3cret'", f"toml: host is text, not a section: {where}"),
            ("mysql = 's3cret'", f"toml: mysql is text, not a section: {where}"),
            ("mysql = 1", f"toml: mysql is a number, not a section: {where}"),
            ("mysql = false", f"toml: mysql is true or false, not a section: {where}"),
            ("mysql = 2021-01-01", f"toml: mysql is a date or a time, not a section: {where}"),
            ("[[mysql]]\nhost = 'x'", f"toml: mysql is a list, not a section: {where}"),
            ('"a\\nb" = 1', f"toml: a\\nb is a number, not a section: {where}"),
            ("[mysql.more]\nhost = 'x'", "toml: [mysql] has no key 'more'"),
            ("['a\tb']", "toml: there is no section [a\\tb]"),
        ]:
            self.assertTrue(self.refusal(written).startswith(expected), written)

    def test_without_end(self) -> None:
        """What would take Python to its limits."""
        for value in ("9" * 5000, f"0x{'f' * 5000}", "[" * 50_000, "{a = " * 10_000):
            self.assertEqual(
                self.refusal(f"[mysql]\nport = {value}"),
                "toml: a number has too many digits, or lists or tables are too deep in each other",
            )


class YamlTests(ConfigTestCase):
    ending = ".yaml"

    def test_layout(self) -> None:
        """Whatever YAML has for it."""
        for written in (
            "mysql:\r\n  host: db\r\n  port: 3307",
            "# x\n---\nmysql: {host: db, port: 3307} # x\n...",
            '{"mysql": {"host": "\\u0064b", "port": "3307"}}',
            "%YAML 1.1\n---\nmysql:\n    port: '3307'\n    host:\n        db",
            "? mysql\n: ? host\n  : db\n  ? port\n  : 3307",
        ):
            self.assertEqual(self.load(written).database, MySQLConfig("db", 3307), written)

    def test_block_text(self) -> None:
        """A block ends in a line end, which no value may have."""
        refusal = self.refusal("mysql:\n  password: |\n    s3cret\n")
        self.assertIn("password (not shown): it has the control character U+000A", refusal)
        config = self.load("mysql:\n  password: |-\n    s3cret\n")
        self.assertEqual(config.database, MySQLConfig(password="s3cret"))

    def test_not_yaml(self) -> None:
        """The line is named, and never shown."""
        for written, line in [
            ("mysql:\n  password: s3cret: x", 2),
            ("mysql:\n\tpassword: s3cret", 2),
            ('mysql:\n  password: "s3cret', 2),
            ("mysql:\n  password: 's3'cret'", 2),
            ("mysql:\n  password: @s3cret", 2),
            ("mysql:\n  password: %s3cret", 2),
            ("mysql:\n  user: x\n s3cret: y", 3),
            ("mysql: {password: s3cret", 1),
            ("mysql:\n  password: s3\x07cret", 2),
            ('mysql:\n  password: "s3\\U00110000cret"', 2),
            ('mysql:\n  password: "s3\\UFFFFFFFFcret"', 2),
            (f"# x\n%YAML 1.{'1' * 5000}\n---", 2),
        ]:
            self.assertEqual(
                self.refusal(written),
                f"yaml, line {line}: this is not YAML, which has section: lines, and indented "
                "key: value lines below them",
                written,
            )

    def test_twice(self) -> None:
        """YAML readers take the last of two in silence."""
        for written, expected in [
            ("mysql:\n  host: a\n  host: a", "[mysql] host is there twice, leave one of them"),
            ("mysql:\njobs:\nmysql:", "the section [mysql] is there twice, put its keys together"),
        ]:
            self.assertEqual(self.refusal(written), f"yaml: {expected}")

    def test_kinds(self) -> None:
        """What is of another kind than it has to be, as YAML 1.1 sees it."""
        text = "it takes text, so put it in double quotes"
        number = "it takes a whole number from 1 to 65535"
        octal = "YAML reads a number that starts with 0 as octal, leave the 0 out or use quotes"
        for key, value, expected in [
            ("db", "123", f"is '123': {text}"),
            ("db", "1.50", f"is '1.50': {text}"),
            ("db", "no", f"is 'no': {text}"),
            ("db", "12:30", f"is '12:30': {text}"),
            ("db", "2021-01-01", f"is a date or a time: {text}"),
            ("db", "", f"is nothing: {text}"),
            ("db", "~", f"is nothing: {text}"),
            ("db", "[x, {y: [z]}]", f"is a list: {text}"),
            ("db", "{x: [1]}", f"is a table: {text}"),
            ("db", "\n  - x\n  - y", f"is a list: {text}"),
            ("password", "123", f"(not shown): {text}"),
            ("password", "0123", f"(not shown): {octal}"),
            ("password", "[s3cret]", f"is a list: {text}"),
            ("password", "", f"is nothing: {text}"),
            ("port", "yes", f"is 'yes': {number}"),
            ("port", "3306.0", f"is '3306.0': {number}"),
            ("port", "[3306]", f"is a list: {number}"),
            ("port", "2021-01-01", f"is a date or a time: {number}"),
            ("port", "", f"is nothing: {number}"),
            ("port", "01234", f"is '01234': {octal}"),
            ("port", "-01", f"is '-01': {octal}"),
            ("port", "0x1F90", f"is '0x1F90': {number}"),
            ("port", "1:30", f"is '1:30': {number}"),
            ("port", "3_306", f"is '3_306': {number}"),
            ("port", ".inf", f"is '.inf': {number}"),
            ("port", "9" * 5000, f"is {'9' * 80 + '...'!r}: {number}"),
        ]:
            self.assertEqual(
                self.refusal(f"mysql:\n  {key}: {value}"), f"yaml: [mysql] {key} {expected}"
            )
        # What another list or table in it has is its own.
        self.assertEqual(
            self.load("mysql:\n  db: [x, {host: y}]\n  user: z", DALGA_MYSQL_DB="d").database,
            MySQLConfig(db="d", user="z"),
        )

    def test_tables(self) -> None:
        where = "keys stand in sections, such as host in mysql"
        top = "it takes section: lines, and indented key: value lines below them"
        for written, expected in [
            ("host: s3cret", f"yaml: host is text, not a section: {where}"),
            ("mysql: s3cret", f"yaml: mysql is text, not a section: {where}"),
            ("mysql: [s3cret]", f"yaml: mysql is a list, not a section: {where}"),
            ("mysql: 1", f"yaml: mysql is a number, not a section: {where}"),
            ("\n- mysql", f"yaml, line 2: this is a list, {top}"),
            ("[mysql]\npassword = s3cret", f"yaml, line 1: this is a list, {top}"),
            ("s3cret", f"yaml, line 1: this is text, {top}"),
            ("12", f"yaml, line 1: this is a number, {top}"),
            ("jobs:\n---\nmysql:", "yaml, line 2: a second document starts here, put all"),
            ("? [mysql]\n: x", "yaml, line 1: a list can't be a key"),
            ("mysql:\n  ? {host: x}\n  : y", "yaml, line 2: a table can't be a key"),
            ("1:", "yaml: there is no section [1]"),
            ('"a\\nb": {}', "yaml: there is no section [a\\nb]"),
            ("<<: {}", "yaml: there is no section [<<]"),
        ]:
            self.assertTrue(self.refusal(written).startswith(expected), written)

    def test_names_and_types(self) -> None:
        """No value stands for another, so that a small file is a small configuration."""
        repeat = "what & and * stand for is not read here, write the value itself, in quotes if it"
        for written, line in [
            ("mysql: &a\n  host: x\nlisten: *a", 1),
            ("mysql:\n  host: &a x", 2),
            ("mysql:\n  host: *s3cret", 2),
            ("mysql:\n  <<: *a", 2),
            ("&a mysql:", 1),
        ]:
            refusal = self.refusal(written)
            self.assertTrue(refusal.startswith(f"yaml, line {line}: {repeat}"), refusal)
        for written, line in [
            ("mysql:\n  port: !!int 3306", 2),
            ("mysql: !!python/object:os.system\n  host: x", 1),
            ("mysql:\n  password: !s3cret", 2),
            ("! mysql:", 1),
        ]:
            refusal = self.refusal(written)
            expected = f"yaml, line {line}: what ! stands for is not read here, leave it out"
            self.assertTrue(refusal.startswith(expected), refusal)

    def test_without_end(self) -> None:
        """Lists in lists end the reading before it takes long."""
        for open_one in ("[", "{a: ", "- "):
            refusal = self.refusal(f"mysql:\n  host:\n    {open_one * 10_000}")
            self.assertEqual(refusal, "yaml, line 3: lists or tables are too deep in each other")


class WiringTests(SynchronousTestCase):
    """What is configured, as the parts get it."""

    def test_lanes(self) -> None:
        """Never more connections than may be opened, nor more than are used, and one for each."""
        most = RUN_THREADS + API_THREADS
        self.assertEqual(MySQLConfig().max_open_conns, most)
        for limit, expected in [
            (0, (4, 3, True)),
            (1, (1, 0, False)),
            (2, (1, 1, False)),
            (3, (1, 1, True)),
            (5, (2, 2, True)),
            (7, (3, 3, True)),
            (8, (4, 3, True)),
            (9, (4, 4, True)),
            (10_000, (4, 4, True)),
        ]:
            self.assertEqual(lanes(limit), expected)

    def test_an_endpoint(self) -> None:
        """It is built of all that its section says."""
        made: list[dict[str, Any]] = []
        self.patch(service, "Endpoint", lambda **given: made.append(given))
        headers = (("X-Key", "1"),)
        answers = Answers(success=statuses_from_text("202"))
        config = EndpointConfig("http://h/", 2.5, answers=answers, headers=headers)
        service.build_endpoint(Clock(), config, Trust(), 7, "here", at_epoch)
        [given] = made
        expected = {
            **{"baseurl": "http://h/", "connect_timeout": 2.5, "instance": "here", "slots": 7},
            **{"headers": headers, "answers": answers, "signer": None, "has_auth": False},
            **{"way": STRAIGHT},
        }
        self.assertEqual({name: given[name] for name in expected}, expected)

    def test_how_long_records_are_kept(self) -> None:
        day = timedelta(days=1)
        history = HistoryConfig(keep=day, keep_failed=2 * day, max_rows=3)
        self.assertEqual(
            settings.keeping_of(history, AuditConfig(4 * day)), Keeping(day, 2 * day, 3, 4 * day)
        )
        self.assertEqual(settings.keeping_of(HistoryConfig(), AuditConfig()), Keeping())

    def test_stores_and_metrics(self) -> None:
        """Those of the only instance, and those of each worker, are as configured."""
        stores: list[dict[str, Any]] = []

        class Store:
            def open(self) -> None: ...
            def called(self, instance: str) -> None: ...
            def where(self) -> str:
                return "a file"

            def close(self) -> Deferred[None]:
                return succeed(None)

        def build(*given: Any) -> Store:
            stores.append(dict(signature(build_store).bind(*given).arguments))
            return Store()

        workers: dict[str, Any] = {}
        self.patch(service, "build_store", build)
        self.patch(service, "listen", lambda *_: [])
        self.patch(service, "use_newest", lambda: None)
        self.patch(service, "quiet_collector", lambda: None)
        self.patch(service, "Supervisor", lambda **given: workers.update(given))
        variables = {
            "DALGA_HISTORY_MODE": "failures",
            "DALGA_HISTORY_KEEP": "2d",
            "DALGA_METRICS_PATHS": "2",
            "DALGA_ALERTS_URL": "http://alerts/",
        }
        config = load_config(None, variables)
        only = service.make_service(config, Clock())
        service.make_supervisor(config, Clock(), 2)
        self.addCleanup(workers["close"])
        one_of_two = workers["make"](Clock(), None)
        self.assertEqual(len(stores), 3)
        for store, daemon in ((stores[0], only), (stores[2], one_of_two)):
            self.assertIs(store["history"], HistoryMode.FAILURES)
            self.assertEqual(store["targets"], settings.targets_of(config))
            self.assertIs(store["metrics"], daemon._fixed.metrics)
            labels = [daemon._fixed.metrics.path_labels.of(path) for path in "abc"]
            self.assertEqual(labels, ["a", "b", "other"])
        self.assertIsNone(only._fixed.shared)
        self.assertIsNotNone(one_of_two._fixed.shared)

        given: dict[str, Any] = {}

        def scheduler(**arguments: Any) -> None:
            given.update(arguments)
            raise StopIteration  # what is built behind it is of no interest here

        self.patch(service, "Scheduler", scheduler)
        self.patch(service, "build_endpoint", lambda *_: None)
        self.assertRaises(
            StopIteration, service.build, Clock(), only._fixed, only._settings, "here"
        )
        self.assertEqual(given["keeping"], Keeping(fine=timedelta(days=2)))
        self.assertIs(given["metrics"], only._fixed.metrics)
        self.assertEqual(list(given["alerting"].targets), ["default"])
        self.assertEqual(given["instance"], "here")

    def test_who_signs_for_targets_of_alerts(self) -> None:
        """The platform's CAs, whichever the default endpoint has; of those, one copy is enough."""
        self.patch(settings, "Trust", lambda ca, _, *own: [ca, *own])
        for ca, cert in (("", ""), ("own.pem", ""), ("", "cert.pem")):
            config = Config(endpoint=EndpointConfig(ca=ca, cert=cert, cert_key=cert))
            made = settings.settings_of(config)
            self.assertEqual(made.alert_trust, [""])
            expected = [ca, cert, cert] if ca or cert else [""]
            self.assertEqual(made.trusts["default"], expected)
            self.assertEqual(made.alert_trust is made.trusts["default"], not (ca or cert))

    def test_fixed_and_exchangeable(self) -> None:
        """
        The database, the address, the workers, the log and the metrics are fixed while a daemon
        runs. Each other key has its place in the settings, which could be exchanged.
        """
        self.patch(settings, "Trust", lambda *given: given)  # so that there need be no such file
        for section, key, text, *_ in EVERY_KEY:
            beside = {as_variable(section, name): BESIDE[key][name] for name in BESIDE.get(key, {})}
            if key in ON_SERVERS:
                beside["DALGA_MYSQL_HOST"] = "db"
            if (section, key) in NOT_YET:
                continue
            # Of some keys none can be left out.
            others = {} if key in ("auth", "authUser", "authSecret", "cert", "key") else beside
            without = settings.settings_of(load_config(None, others))
            made = settings.settings_of(
                load_config(None, {**beside, as_variable(section, key): text})
            )
            # By `host` requests may call the daemon.
            fixed = (section, key) in {("listen", "port"), ("jobs", "workers")}
            fixed = fixed or section in ("mysql", "sqlite", "log", "metrics")
            self.assertEqual(made == without, fixed, key)

    def test_server(self) -> None:
        database = MySQLConfig(
            "db.example", 3307, "work", "jobs", "dalga", "s3cret", 0, 0.5, 30.0, 20.0
        )
        wanted = {
            "host": "db.example",
            "port": 3307,
            "ssl": mysqltls.ANY_CERTIFICATE,
            "database": "work",
            "user": "dalga",
            "password": b"s3cret",
            "connect_timeout": 0.5,
            "read_timeout": 30.0,
            "write_timeout": 20.0,
        }
        self.assertEqual(self.connects_with(database), wanted)
        disabled = {**wanted, "ssl_disabled": True}
        del disabled["ssl"]
        self.assertEqual(self.connects_with(replace(database, ssl_mode="disabled")), disabled)
        del disabled["port"]
        self.assertEqual(
            self.connects_with(replace(database, socket="/run/s")),
            {**disabled, "unix_socket": "/run/s", "host": "/run/s"},
        )
        self.assertEqual(server(database).table, "`jobs`")

    def test_tls(self) -> None:
        """What PyMySQL takes as: this, or no connection."""
        context = self.connects_with(MySQLConfig(ssl_mode="required"))["ssl"]
        self.assertIsInstance(context, ssl.SSLContext)

    def connects_with(self, database: MySQLConfig) -> dict[str, Any]:
        """What PyMySQL is given, but for what is always the same."""
        given: dict[str, Any] = {}

        def connect(**arguments: Any) -> None:
            given.update(arguments)
            raise pymysql.OperationalError(2003, "no")

        self.patch(pymysql, "connect", connect)
        self.assertRaises(pymysql.OperationalError, server(database).connect)
        del (
            given["client_flag"],
            given["charset"],
            given["conv"],
            given["auth_plugin_map"],
            given["defer_connect"],
        )
        return given


@each_engine(globals(), only=("mariadb", "mysql"))
class ConnectionTests(EngineTestCase):
    """What is configured, as the server gets it."""

    async def test_lock_wait(self) -> None:
        """A lock is waited for no longer than an answer, and three seconds at most."""
        assert isinstance(self.config, MySQLConfig)
        for timeout, expected in [(2.0, 1), (2.5, 2), (3.0, 2), (3.5, 3), (10.0, 3), (300.0, 3)]:
            dialect = server(replace(self.config, read_timeout=timeout))
            with closing(dialect.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT @@SESSION.innodb_lock_wait_timeout")
                self.assertEqual(cursor.fetchall(), ((expected,),))

    async def test_connections(self) -> None:
        """There are never more than may be, one of them kept for later, and one will do for all."""
        assert isinstance(self.config, MySQLConfig)
        for limit, expected in [(1, 1), (3, 2), (0, 7)]:
            self.config = replace(self.config, max_open_conns=limit)
            store = self.make_store()
            if limit == 1:
                store.create_table()
            store.open()
            others = self.connections()  # some of them closed, but not gone yet
            calls: list[Deferred[Any]] = [store.now() for _ in range(30)]
            calls += [store.announce("a") for _ in range(30)]
            await gatherResults(calls)
            self.assertEqual(len(self.connections() - others), expected)
            await store.close()

    def connections(self) -> set[int]:
        """Those to the test's database, but the one that asks."""
        return {
            connection
            for (connection,) in self.sql(
                "SELECT id FROM information_schema.processlist"
                " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
        }


class Client(Protocol):
    """Connects, sends something, and waits until it is cut off."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.cut_off: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.cut_off.callback(None)


@each_engine(globals(), only=("sqlite",))
class DaemonConfigTests(DaemonTestCase):
    """Daemons that go by a TOML and by a YAML file."""

    async def go(
        self,
        ending: str,
        render: Callable[[dict[str, dict[str, Given]]], str],
        jobs: dict[str, Given],
        listen: dict[str, Given],
    ) -> tuple[Daemon, str]:
        """Start one; gives it and its URL."""
        assert isinstance(self.config, SQLiteConfig)
        path = Path(self.folder, f"dalga{ending}").absolute()
        path.write_text(
            render(
                {
                    "jobs": jobs,
                    "sqlite": {"path": (False, self.config.path)},
                    "listen": {"port": (True, "0"), **listen},
                    "endpoint": {"baseurl": (False, self.baseurl)},
                }
            ),
            encoding="utf-8",
        )
        daemon = self.spawn("--config", str(path))
        return daemon, await daemon.url()

    async def cut_off(self, url: str, data: bytes) -> None:
        """Wait until a client is cut off that sends nothing, or nothing after some `data`."""
        port = int(url.rsplit(":", 1)[1])
        client = Client(data)
        await TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(
            Factory.forProtocol(lambda: client)
        )
        await client.cut_off

    async def test_toml(self) -> None:
        """Retries are as often as it says; an instance has one name and leaves the list."""
        short = (False, "10ms")
        daemon, url = await self.go(
            ".toml",
            as_toml,
            {
                "retryInterval": short,
                "retryMaxInterval": short,
                "retryMultiplier": (True, "1"),
                "retryJitter": (True, "0"),
            },
            {"idleTimeout": (False, "1s"), "writeTimeout": (False, "10s")},
        )
        await daemon.says("writeTimeout is ignored: an answer is there within 5 s")
        name = (await daemon.says(r"dalga \S+ \((\S+)\) listens"))[1]
        # It answers before its first heartbeat is written.
        status = await self.until_shown(f"{url}/status", total_instances=1)
        self.assertEqual(status["instance_id"], name)
        # By default, twenty attempts take minutes.
        self.endpoint.answer = lambda hit: 500 if hit.attempt < 20 else 200
        await self.call("PUT", f"{url}/jobs/a/x?one-off=true&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 20)
        self.assertEqual({hit.instance for hit in self.endpoint.hits}, {name})
        await self.cut_off(url, b"")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_alive_6"), [(0,)])

    async def test_yaml(self) -> None:
        """Intervals are counted from the end of a run; a request has to arrive in time."""
        daemon, url = await self.go(
            ".yaml",
            as_yaml,
            {"fixedIntervals": (True, "false")},
            {"readTimeout": (True, "1")},
        )
        self.endpoint.answer = lambda hit: deferLater(self.reactor, 0.5, lambda: 200)
        await self.call("PUT", f"{url}/jobs/a/x?interval=1&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        first, second = self.endpoint.hits
        assert first.end is not None
        # With fixed intervals, half a second.
        self.assertGreater(second.start - first.end, 0.9)
        await self.cut_off(url, b"GET /status HTTP/1.1\r\n")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)


class LibraryTests(SynchronousTestCase):
    """What the lowest version of a library has to do, where no server says so."""

    def test_octets_are_no_text(self) -> None:
        """PyMySQL 1.2.0 writes them as text; MariaDB then refuses each token of a lease."""
        connection = pymysql.connect(defer_connect=True)
        self.assertIn("X'c8'", connection.escape(b"\xc8"))
