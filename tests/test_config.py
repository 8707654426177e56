"""The configuration: what is read from where, and what is refused in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.config import (
    KEYS,
    Config,
    EndpointConfig,
    JobsConfig,
    ListenConfig,
    MySQLConfig,
    SQLiteConfig,
    load_config,
)
from dalga.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "dalga.ini.example"

#: Each key with a value that is not its default, where `Config` has it and as what.
EVERY_KEY: list[tuple[str, str, str, str, Any]] = [
    ("jobs", "randomizationFactor", "0.25", "randomization_factor", 0.25),
    ("jobs", "maxRunning", "7", "max_running", 7),
    ("jobs", "scanFrequency", "500ms", "scan_frequency", 0.5),
    ("jobs", "shutdownTimeout", "0", "shutdown_timeout", 0.0),
    ("mysql", "host", "db.example", "host", "db.example"),
    ("mysql", "port", "3307", "port", 3307),
    ("mysql", "db", "work", "db", "work"),
    ("mysql", "table", "my_jobs$-1", "table", "my_jobs$-1"),
    ("mysql", "user", "dalga", "user", "dalga"),
    ("mysql", "password", "s3cr%t", "password", "s3cr%t"),
    ("sqlite", "path", "/var/lib/jobs.sqlite", "path", "/var/lib/jobs.sqlite"),
    ("listen", "host", "::1", "host", "::1"),
    ("listen", "port", "0", "port", 0),
    ("endpoint", "baseurl", "https://example.org:8443/in/", "baseurl", ...),
    ("endpoint", "timeout", "1m30s", "timeout", 90.0),
]


def part(config: Config, section: str) -> Any:
    return config.database if section in ("mysql", "sqlite") else getattr(config, section)


class ConfigTestCase(SynchronousTestCase):
    def write(self, text: str | bytes) -> str:
        """:return: the path of an ini file with that text."""
        path = Path(self.mktemp()).with_suffix(".ini")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def load(self, text: str | bytes, **variables: str) -> Config:
        return load_config(self.write(text), variables)

    def refusal(self, text: str | bytes | None, **variables: str) -> str:
        """:return: the sentence with which this is refused, with its file called "ini"."""
        path = None if text is None else self.write(text)
        error = self.assertRaises(ConfigError, load_config, path, variables)
        sentence = str(error)
        self.assertNotIn("\n", sentence)
        return sentence.replace(str(path), "ini")


class ReadTests(ConfigTestCase):
    def test_nothing_given(self) -> None:
        """The defaults are the original's, and the database is the embedded one."""
        config = load_config(None, {})
        self.assertEqual(config, Config())
        self.assertEqual(config.jobs, JobsConfig(0.0, 100, 1.0, 10.0))
        self.assertEqual(config.database, SQLiteConfig("dalga.sqlite"))
        self.assertEqual(config.listen, ListenConfig("127.0.0.1", 34006))
        self.assertEqual(config.endpoint, EndpointConfig("http://127.0.0.1:5000/", 10.0))
        self.assertEqual(MySQLConfig(), MySQLConfig("127.0.0.1", 3306, "test", "dalga", "root", ""))

    def test_table_of_keys_is_whole(self) -> None:
        listed = [(section, key) for section, key, *_ in EVERY_KEY]
        self.assertEqual(listed, [(section, key) for section in KEYS for key in KEYS[section]])

    def test_every_key_from_the_file(self) -> None:
        for section, key, text, attribute, value in EVERY_KEY:
            for spelling in (key, key.lower(), key.upper()):
                config = self.load(f"[{section}]\n{spelling} = {text}\n")
                got = getattr(part(config, section), attribute)
                self.assertEqual(got, text if value is ... else value, key)

    def test_every_key_from_a_variable(self) -> None:
        for section, key, text, attribute, value in EVERY_KEY:
            config = load_config(None, {f"DALGA_{section}_{key}".upper(): text})
            got = getattr(part(config, section), attribute)
            self.assertEqual(got, text if value is ... else value, key)

    def test_values_not_the_defaults(self) -> None:
        """Else the two tests above would pass where a key is not read at all."""
        for section, _key, text, attribute, value in EVERY_KEY:
            default = MySQLConfig() if section == "mysql" else part(Config(), section)
            self.assertNotEqual(
                getattr(default, attribute), text if value is ... else value, attribute
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
        for start, stop, other, expected in [
            (mysql, sqlite, (sqlite, end), MySQLConfig()),
            (sqlite, end, (mysql, sqlite), SQLiteConfig()),
        ]:
            bare = re.sub(r"(?m)^;(?=\S)", "", text[start:stop])
            changed = text.replace(text[start:stop], bare).replace(text[slice(*other)], "\n")
            self.assertEqual(self.load(changed), Config(database=expected))
        found = re.findall(r"(?m)^;?(?:\[(\w+)\]|(\w+) = .*)$", text)
        sections: dict[str, list[str]] = {}
        for section, key in found:
            if section:
                current = sections.setdefault(section, [])
            else:
                current.append(key)
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
                "file such as dalga.ini.example, or none for the defaults",
            )

    def test_not_utf8(self) -> None:
        for text in ("[mysql]\nuser = jöb".encode("latin-1"), b"\xff\xfe[\0", b"\x7fELF\x80"):
            self.assertIn("ini is not UTF-8 text (byte ", self.refusal(text))

    def test_not_ini(self) -> None:
        for text, line in [
            ("host = db", 1),
            ('{"mysql": {}}', 1),
            ("\n\n[mysql]\ns3cret", 4),
            ("[mysql]\npassword: s3cret", 2),
            ("[mysql]\nhost = a\n  s3cret", 3),
            ("[mysql\n", 1),
            ("[]\n", 1),
            ("[mysql]\n= s3cret", 2),
            ("[mysql] s3cret", 1),
        ]:
            self.assertEqual(
                self.refusal(text),
                f"ini, line {line}: this is not an ini file's line, which is a [section], a key = "
                "value in one, or a comment after ; or #",
            )

    def test_key_on_the_line_of_its_section(self) -> None:
        """It would have been passed over in silence."""
        self.assertIn("ini, line 1", self.refusal("[mysql] host = db"))
        self.assertIn("has no key '[mysql] host'", self.refusal("[jobs]\n[mysql] host = db"))

    def test_twice(self) -> None:
        for text, expected in [
            ("[jobs]\n[jobs]", "ini, line 2: the section [jobs] is there twice, put its keys"),
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
            (
                "DEFAULT",
                "ini: there is no section [DEFAULT], there is [jobs], [mysql], [sqlite], [listen], "
                "[endpoint]",
            ),
        ]:
            self.assertEqual(self.refusal(f"[{section}]\nhost = x\n[mysql]"), expected)

    def test_unknown_key(self) -> None:
        for section, key, expected in [
            ("mysql", "pasword", "has no key 'pasword', did you mean password?"),
            ("jobs", "MaxRuning", "has no key 'MaxRuning', did you mean maxRunning?"),
            ("listen", "baseurl", "has no key 'baseurl', there is host, port"),
            ("sqlite", "table", "has no key 'table', there is path"),
        ]:
            refusal = self.refusal(f"[{section}]\n{key} = x")
            self.assertEqual(refusal, f"ini: [{section}] {expected}")

    def test_unknown_variable(self) -> None:
        for name, hint in [
            ("DALGA_MYSQL_PASWORD", ", did you mean DALGA_MYSQL_PASSWORD?"),
            ("DALGA_MYSQL_SERVICE_HOST", ""),
            ("DALGA_SQLITE_", ", did you mean DALGA_SQLITE_PATH?"),
            ("DALGA_LISTEN", ""),
            ("DALGA_LISTEN_Port", ", did you mean DALGA_LISTEN_PORT?"),
        ]:
            refusal = self.refusal(None, **{name: "x"})
            self.assertTrue(refusal.startswith(f"{name} is not a variable of Dalga's"), refusal)
            self.assertIn(hint, refusal)


class ValueRefusalTests(ConfigTestCase):
    """
    Each value is refused in the file and in a variable, in a sentence that names where it stands,
    what was given, and what would do.
    """

    def check(
        self, section: str, key: str, refused: list[str], accepted: list[str], do: str
    ) -> None:
        variable = f"DALGA_{section}_{key}".upper()
        for text in refused:
            self.assertEqual(
                self.refusal(None, **{variable: text}), f"{variable} is {text!r}: {do}"
            )
            if "\0" not in text and text == text.strip():
                quoted = text.replace("\\", "\\\\").replace('"', '\\"')
                self.assertEqual(
                    self.refusal(f'[{section}]\n{key} = "{quoted}"'),
                    f"ini: [{section}] {key} is {text!r}: {do}",
                )
        for text in accepted:
            load_config(None, {variable: text})

    def test_whole_numbers(self) -> None:
        bad = ["", "abc", "1.5", "1e2", "+1", " 1", "1_0", "0x1", "-1", "nan", "٣", "9" * 18]
        for section, key, low, high in [
            ("mysql", "port", 1, 65535),
            ("listen", "port", 0, 65535),
            ("jobs", "maxRunning", 1, 10_000),
        ]:
            self.check(
                section,
                key,
                [*bad, str(low - 1), str(high + 1)],
                [str(low), str(high), "0080"],
                f"it takes a whole number from {low} to {high}",
            )

    def test_factor(self) -> None:
        self.check(
            "jobs",
            "randomizationFactor",
            ["", "-0.1", "1.01", "2", "nan", "inf", "-inf", "1e-3", "0,5", "10%", "."],
            ["0", "1", "1.0", ".5", "0.25"],
            "it takes a number from 0 to 1, such as 0.25",
        )

    def test_durations(self) -> None:
        bad = [
            "",
            "abc",
            "-1",
            "nan",
            "inf",
            "1e1",
            "10 s",
            "10S",
            "s",
            "1h30",
            "1d",
            "3601",
            "61m",
        ]
        zeros = ["0", "0s", "0.0"]
        for section, key, zero in [
            ("jobs", "scanFrequency", False),
            ("jobs", "shutdownTimeout", True),
            ("endpoint", "timeout", False),
        ]:
            self.check(
                section,
                key,
                bad if zero else bad + zeros,
                ["1h", "3600", "0.001", *(zeros if zero else [])],
                f"it takes a duration from {'0' if zero else 'more than 0'} to an hour, in seconds "
                "(10, 2.5) or with a unit (500ms, 10s, 5m, 1h)",
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
        ]:
            config = load_config(None, {"DALGA_ENDPOINT_TIMEOUT": text})
            self.assertEqual(config.endpoint.timeout, seconds, text)

    def test_hosts(self) -> None:
        bad = ["", "a b", "db:3306", "[::1]", "http://db", "db/x", "u@db", "a,b", "1::2::3", " "]
        good = ["localhost", "db-1.example.org", "10.0.0.1", "::", "fe80::1%eth0", "örnek.com"]
        do = "it takes a host name or an IP address, without a port and without brackets"
        plain = [text for text in bad if "@" not in text]
        self.check("mysql", "host", plain, good, do)
        everywhere = f"{do}, and 0.0.0.0 or :: for all of this machine's"
        self.check("listen", "host", plain, good, everywhere)
        self.assertIn(do, self.refusal(None, DALGA_MYSQL_HOST="u@db"))

    def test_table(self) -> None:
        """It goes into SQL between backquotes."""
        self.check(
            "mysql",
            "table",
            ["", "a`b", "a b", "a.b", "a;b", "jöbs", "x" * 65, "a\\", '"'],
            ["a", "x" * 64, "A-z_0$"],
            "it takes 1 to 64 ASCII letters, digits, _, $ and -",
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
            if key in ("host", "db", "table", "user", "password", "path", "baseurl"):
                variable = f"DALGA_{section}_{key}".upper()
                for text, reason in [
                    ("a\nb", "it has the control character U+000A, leave it out"),
                    ("a\0b", "it has the control character U+0000, leave it out"),
                    ("a\x7fb", "it has the control character U+007F, leave it out"),
                    ("a\udcffb", "it is not UTF-8, write it in UTF-8"),
                ]:
                    refusal = self.refusal(None, **{variable: text})
                    self.assertTrue(refusal.startswith(variable) and refusal.endswith(reason))
                    self.assertEqual(repr(text) in refusal, key != "password")
                    refusal.encode("utf-8")

    def test_long_value_is_cut(self) -> None:
        refusal = self.refusal(f"[mysql]\ntable = {'x' * 5000}")
        self.assertIn(repr("x" * 80 + "..."), refusal)
        self.assertLess(len(refusal), 300)


class BaseURLTests(ConfigTestCase):
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
            ("http://h:x/", unreadable),
            ("http://[::1/", unreadable),
            ("http://h/%", percent),
            ("http://h/%zz", percent),
        ]:
            self.assertEqual(
                self.refusal(None, DALGA_ENDPOINT_BASEURL=text),
                f"DALGA_ENDPOINT_BASEURL is {text!r}: {do}",
            )

    def test_user_info(self) -> None:
        """Its password is not repeated."""
        for text in ("http://u:s3cret@h/", "http://@h/", "http://u:s3cret@h/?x"):
            self.assertEqual(
                self.refusal(f"[endpoint]\nbaseurl = {text}"),
                "ini: [endpoint] baseurl (not shown): it takes a URL without a user name or "
                "password",
            )
        self.assertNotIn("s3cret", self.refusal("[endpoint]\nbaseurl = ftp://u:s3cret@h/ x"))
