"""
The configuration: ``dalga.ini`` and ``DALGA_*`` variables in, a frozen `Config` out.

Whatever is not understood is refused by name. The sentence says where it stands (file, section and
key, or variable), what was given and what would do; the value of a password is never part of it.
"""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from dalga.errors import ConfigError


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """``[jobs]``: how jobs are run."""

    #: 0 keeps periodic jobs on their grid; f draws each interval from [1-f, 1+f] times the job's.
    randomization_factor: float = 0.0
    #: How many runs this instance has under way at most.
    max_running: int = 100
    #: Seconds between two scans for jobs that other instances wrote.
    scan_frequency: float = 1.0
    #: Seconds that a stop waits for runs under way.
    shutdown_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class MySQLConfig:
    """``[mysql]``: the table on a MySQL or MariaDB server."""

    host: str = "127.0.0.1"
    port: int = 3306
    db: str = "test"
    #: Safe between backquotes: letters, digits, ``_``, ``$`` and ``-`` only.
    table: str = "dalga"
    user: str = "root"
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SQLiteConfig:
    """``[sqlite]``: the table in a file."""

    #: Relative to the working directory.
    path: str = "dalga.sqlite"


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """``[listen]``: where the HTTP interface is."""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 34006


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """``[endpoint]``: where jobs are POSTed to."""

    #: An http or https URL of ASCII characters: scheme, host, and maybe a port and a path.
    baseurl: str = "http://127.0.0.1:5000/"
    #: Seconds for one POST, from the connect to the end of the answer.
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be configured; made without arguments, the defaults."""

    jobs: JobsConfig = JobsConfig()
    database: MySQLConfig | SQLiteConfig = SQLiteConfig()
    listen: ListenConfig = ListenConfig()
    endpoint: EndpointConfig = EndpointConfig()


#: Sections and their keys, as they are documented; read in any case.
KEYS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("randomizationFactor", "maxRunning", "scanFrequency", "shutdownTimeout"),
    "mysql": ("host", "port", "db", "table", "user", "password"),
    "sqlite": ("path",),
    "listen": ("host", "port"),
    "endpoint": ("baseurl", "timeout"),
}


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """
    Read the configuration: a variable goes before the file, the file before the default.

    :param path: an ini file; None for none.
    :param environ: the environment; of it, what starts with ``DALGA_`` and the name of a section.
    :raises ConfigError: with one sentence on the first thing that won't do.
    """
    sections = {} if path is None else _read_file(path)
    # What makes each section be there: its heading, also with nothing below, or a first variable.
    origins = {section: f"[{section}] in {path}" for section in sections}
    for variable in _variables(environ):
        origins.setdefault(variable.section, variable.where)
        sections.setdefault(variable.section, {})[variable.key] = variable
    if "mysql" in sections and "sqlite" in sections:
        raise ConfigError(
            f"{origins['mysql']} and {origins['sqlite']} each choose a database: leave one of them "
            "out to say whether jobs live in MySQL or in SQLite"
        )

    jobs, mysql, sqlite, listen, endpoint = (_Section(sections.get(name, {})) for name in KEYS)
    default = Config()
    database: MySQLConfig | SQLiteConfig
    if "mysql" in sections:
        of_mysql = MySQLConfig()
        database = MySQLConfig(
            host=mysql.text("host", of_mysql.host, _check_host),
            port=mysql.integer("port", of_mysql.port, 1, 65535),
            db=mysql.text("db", of_mysql.db, _check_database),
            table=mysql.text("table", of_mysql.table, _check_table),
            user=mysql.text("user", of_mysql.user, _check_user),
            password=mysql.text("password", of_mysql.password, _check_nothing),
        )
    else:
        database = SQLiteConfig(path=sqlite.text("path", SQLiteConfig().path, _check_path))
    return Config(
        jobs=JobsConfig(
            randomization_factor=jobs.fraction(
                "randomizationFactor", default.jobs.randomization_factor
            ),
            max_running=jobs.integer("maxRunning", default.jobs.max_running, 1, 10_000),
            scan_frequency=jobs.duration("scanFrequency", default.jobs.scan_frequency),
            shutdown_timeout=jobs.duration(
                "shutdownTimeout", default.jobs.shutdown_timeout, zero=True
            ),
        ),
        database=database,
        listen=ListenConfig(
            host=listen.text("host", default.listen.host, _check_listen_host),
            port=listen.integer("port", default.listen.port, 0, 65535),
        ),
        endpoint=EndpointConfig(
            baseurl=endpoint.text("baseurl", default.endpoint.baseurl, _check_baseurl),
            timeout=endpoint.duration("timeout", default.endpoint.timeout),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Value:
    """A value as it was given, quotes and comments gone."""

    section: str
    key: str
    text: str
    #: The file, section and key, or the variable.
    where: str

    def refuse(self, why: str) -> ConfigError:
        """:param why: what follows the colon: what would do, or what is in the way."""
        # A URL with an @ may have a password in it, too.
        secret = self.key == "password" or "@" in self.text
        given = " (not shown)" if secret else f" is {_shown(self.text)}"
        return ConfigError(f"{self.where}{given}: {why}")


_Sections = dict[str, dict[str, _Value]]


class _Section:
    """One section's values, read as what they should be."""

    def __init__(self, values: Mapping[str, _Value]) -> None:
        self._values = values

    def text(self, key: str, default: str, check: Callable[[str], str | None]) -> str:
        """:param check: says why a text won't do; None where it will."""
        value = self._values.get(key)
        if value is None:
            return default
        if why := _undisplayable(value.text) or check(value.text):
            raise value.refuse(why)
        return value.text

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._values.get(key)
        if value is None:
            return default
        # Seventeen digits are more than any range here, and int() refuses thousands of them.
        if re.fullmatch(r"-?[0-9]{1,17}", value.text) and low <= int(value.text) <= high:
            return int(value.text)
        raise value.refuse(f"it takes a whole number from {low} to {high}")

    def fraction(self, key: str, default: float) -> float:
        value = self._values.get(key)
        if value is None:
            return default
        # A narrower grammar than float's, which takes "nan", "inf" and "1_0".
        if re.fullmatch(_NUMBER, value.text) and float(value.text) <= 1:
            return float(value.text)
        raise value.refuse("it takes a number from 0 to 1, such as 0.25")

    def duration(self, key: str, default: float, zero: bool = False) -> float:
        """
        :param zero: whether 0 will do; an hour always is the most.
        :return: seconds.
        """
        value = self._values.get(key)
        if value is None:
            return default
        seconds = _seconds(value.text)
        if seconds is not None and seconds <= 3600 and (seconds > 0 or zero):
            return seconds
        least = "0" if zero else "more than 0"
        raise value.refuse(
            f"it takes a duration from {least} to an hour, in seconds (10, 2.5) or with a unit "
            "(500ms, 10s, 5m, 1h)"
        )


_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float | None:
    """The seconds of ``2.5``, or of Go's ``500ms``, ``10s`` and ``1m30s``."""
    if re.fullmatch(_NUMBER, text):
        return float(text)
    part = rf"({_NUMBER})(ms|s|m|h)"
    if not re.fullmatch(f"(?:{part})+", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, text))


# What a text may be. Each says why one won't do.


def _undisplayable(text: str) -> str | None:
    for character in text:
        if character < " " or character == "\x7f":
            return f"it has the control character U+{ord(character):04X}, leave it out"
        # How Python shows bytes of the environment that are not UTF-8.
        if "\ud800" <= character <= "\udfff":
            return "it is not UTF-8, write it in UTF-8"
    return None


def _check_nothing(text: str) -> None:
    """Any text will do, also an empty one."""


def _check_database(text: str) -> str | None:
    return None if text else "it takes the name of a database"


def _check_user(text: str) -> str | None:
    return None if text else "it takes the name of a database user"


def _check_table(text: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9_$-]{1,64}", text):
        return None
    return "it takes 1 to 64 ASCII letters, digits, _, $ and -"


def _check_path(text: str) -> str | None:
    if text and text != ":memory:":
        return None
    return "it takes the path of a file, such as dalga.sqlite"


def _check_host(text: str) -> str | None:
    if _is_host(text):
        return None
    return "it takes a host name or an IP address, without a port and without brackets"


def _check_listen_host(text: str) -> str | None:
    if _is_host(text):
        return None
    return (
        "it takes a host name or an IP address, without a port and without brackets, and 0.0.0.0 "
        "or :: for all of this machine's"
    )


def _is_host(text: str) -> bool:
    if ":" in text:
        try:
            IPv6Address(text)
        except ValueError:
            return False
        return True
    return re.fullmatch(r"[^\s/\\\[\]@?#,;'\"]+", text) is not None


def _check_baseurl(text: str) -> str | None:
    # Before all else: urlsplit drops tabs and line ends without a word, and takes any character.
    if odd := re.search(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]", text):
        return (
            f"U+{ord(odd[0]):04X} can't stand in a URL, percent-encode it (in a host name, use its "
            "xn-- form)"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return "a % in a URL takes two hexadecimal digits after it, write a plain one as %25"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        return "its host or port can't be read, it takes a URL such as http://127.0.0.1:5000/"
    if url.scheme not in ("http", "https"):
        return "it takes a URL that starts with http:// or https://"
    if "@" in url.netloc:
        return "it takes a URL without a user name or password"
    if not host or not _is_host(host) or "%" in host:
        return "it takes a URL with a host, such as http://127.0.0.1:5000/"
    if port == 0 or url.netloc.endswith(":"):
        return "its port can't be used, it takes one from 1 to 65535, or none and no colon"
    if "?" in text or "#" in text:
        return "it takes a URL without query (?) and fragment (#), as a job's path is put behind it"
    return None


# The file.

# As configparser's own, but only a comment may follow on the line: the rest would be ignored.
_HEADER = re.compile(r"\[\s*(?P<header>[^\]]+?)\s*\]\s*(?:[;#].*)?$")


class _Ini(configparser.RawConfigParser):
    SECTCRE = _HEADER

    def __init__(self) -> None:
        # No section is special: a [DEFAULT], of which others inherit, is one more unknown section.
        super().__init__(delimiters=("=",), default_section="", interpolation=None)

    def optionxform(self, optionstr: str) -> str:
        """Keys stay as they were written, to be named so where they are refused."""
        return optionstr


def _read_file(path: str) -> _Sections:
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}): it takes an ini file such as "
            "dalga.ini.example"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"can't read the configuration file {_shown(path)} ({reason}): give the path of an ini "
            "file such as dalga.ini.example, or none for the defaults"
        ) from None
    parser = _Ini()
    try:
        # Without its indentation, which would make a line part of the value above it.
        parser.read_string("\n".join(line.strip() for line in text.split("\n")), path)
    except configparser.DuplicateSectionError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: the section [{error.section}] is there twice, put its "
            "keys together"
        ) from None
    except configparser.DuplicateOptionError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: [{error.section}] {error.option} is there twice, leave "
            "one of them"
        ) from None
    except configparser.ParsingError as error:
        # Not the line itself: it may hold a password.
        lineno = getattr(error, "lineno", None) or error.errors[0][0]
        raise ConfigError(
            f"{path}, line {lineno}: this is not an ini file's line, which is a [section], a "
            "key = value in one, or a comment after ; or #"
        ) from None

    sections: _Sections = {}
    for header in parser.sections():
        section = header.lower()
        if section not in KEYS:
            raise ConfigError(
                f"{path}: there is no section [{header}]{_instead(header, KEYS, '[{}]')}"
            )
        if section in sections:
            raise ConfigError(
                f"{path}: the section [{section}] is there twice, put its keys together"
            )
        values = sections[section] = {}
        for written, raw in parser.items(header):
            value = _from_file(path, section, written, raw)
            if value.key in values:
                raise ConfigError(f"{value.where} is there twice, leave one of them")
            values[value.key] = value
    return sections


def _from_file(path: str, section: str, key: str, raw: str) -> _Value:
    """:param raw: the text after the equals sign."""
    known = {name.lower(): name for name in KEYS[section]}
    if key.lower() not in known:
        raise ConfigError(
            f"{path}: [{section}] has no key {_shown(key)}{_instead(key, KEYS[section], '{}')}"
        )
    name = known[key.lower()]
    value = _Value(section, name, raw, f"{path}: [{section}] {name}")
    if raw.startswith('"'):
        quoted = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"(?:\s+[;#].*)?', raw)
        if quoted is None:
            raise value.refuse(
                'what starts with " ends with " (and maybe a comment), with \\" for a quote and '
                "\\\\ for a backslash between them"
            )
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    else:
        text = re.sub(r"(?:^|\s+)[;#].*", "", raw)
        if name == "password" and text != raw:
            # A comment, or part of the password? A guess would end as "access denied".
            raise value.refuse("put it in double quotes, as it has a ; or # that starts a comment")
    return _Value(section, name, text, value.where)


def _variables(environ: Mapping[str, str]) -> Iterable[_Value]:
    """The values of ``DALGA_<SECTION>_<KEY>``, taken literally; other variables are not ours."""
    for variable, text in sorted(environ.items()):
        prefix, _, rest = variable.partition("_")
        section, separator, key = rest.partition("_")
        if prefix != "DALGA" or section.lower() not in KEYS or section != section.upper():
            continue
        known = {name.upper(): name for name in KEYS[section.lower()]}
        if not separator or key not in known:
            names = [f"DALGA_{section}_{name}" for name in known]
            raise ConfigError(
                f"{variable} is not a variable of Dalga's{_instead(variable, names, '{}')}"
            )
        yield _Value(section.lower(), known[key], text, variable)


def _instead(given: str, known: Iterable[str], form: str) -> str:
    """The end of a sentence on something unknown: what may have been meant, or what there is."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1)
    if close:
        return f", did you mean {form.format(by_lower[close[0]])}?"
    return ", there is " + ", ".join(form.format(name) for name in by_lower.values())


def _shown(text: str) -> str:
    """`text` in quotes, on one line and not too long for it."""
    return repr(text if len(text) <= 80 else text[:80] + "...")
