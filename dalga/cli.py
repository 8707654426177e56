"""
The ``dalga`` command, and ``twistd dalga``. Both take the same options, make the service in the
same way, and end with one line where it can't be made.

    main           the dalga command: makes the service, and runs the reactor; dalga token is in
                   dalga.tokens_cli
    makeService    called by twistd, which runs the reactor itself
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService
from twisted.logger import globalLogBeginner
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from dalga import __version__
from dalga.config.load import load, load_config
from dalga.config.sections import Config, LogFormat, LogLevel, SQLiteConfig
from dalga.config.shown import lines_of
from dalga.destination import of_twistd, standard_output, text_to_syslog
from dalga.errors import ConfigError, StartupError, TableExists
from dalga.lines import JsonLines, TextLines
from dalga.log import Form, log_from
from dalga.privileges import User
from dalga.signals import EarlyHangUps, take_signals
from dalga.tokens_cli import main as token

if TYPE_CHECKING:
    from dalga.daemon import Daemon


class Options(UsageOptions):
    """The options of the command line."""

    synopsis = (
        "[--config FILE] [--workers N | --create-table | --upgrade-table [--dry-run] | "
        "--check-config] [--debug] [--version]"
    )
    longdesc = (
        "Cron as a service. Schedule jobs over HTTP; they are kept in a table and POSTed to your "
        "endpoint on time. Without --config, jobs live in an SQLite file in the working directory."
    )
    optParameters = [  # noqa: RUF012 - Twisted reads it from the class
        ["config", "c", None, "The configuration file: as dalga.ini.example, or TOML or YAML."],
        ["workers", None, None, "How many processes run jobs; auto is one for each core."],
    ]
    optFlags = [  # noqa: RUF012
        ["create-table", None, "Create the jobs table, and end."],
        ["upgrade-table", None, "Upgrade an older jobs table, or one of a Go release, and end."],
        ["check-config", None, "Show what the configuration comes to, or its mistakes, and end."],
        ["dry-run", None, "With --upgrade-table: only say what that would do."],
        ["debug", "d", "Log more: goes before level in [log]."],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take the Go original's spellings, too: ``-config``, ``-create-tables``."""
        given = sys.argv[1:] if options is None else list(options)
        super().parseOptions(  # type: ignore[no-untyped-call]
            [_two_dashes(word) for word in given]
        )

    def postOptions(self) -> None:
        """Refuse options that contradict each other."""
        if self["create-table"] and self["upgrade-table"]:
            raise UsageError(
                "--create-table and --upgrade-table can't go together: --create-table is for a new "
                "table, --upgrade-table for one that is there"
            )
        if self["check-config"] and (self["create-table"] or self["upgrade-table"]):
            raise UsageError("--check-config opens no table, so it goes with no option for one")
        if self["dry-run"] and not self["upgrade-table"]:
            raise UsageError("--dry-run goes with --upgrade-table only")

    def parseArgs(self, *arguments: str) -> None:
        """Refuse any argument beside the options."""
        if arguments:
            raise UsageError(f"{arguments[0]!r} is no option, and there is nothing else to give")

    def opt_version(self) -> NoReturn:
        """Show the version, and end."""
        print(f"dalga {__version__}")
        sys.exit(0)

    opt_h = UsageOptions.opt_help


#: The options that the Go original takes with one dash.
_LONG = (
    "config",
    "workers",
    "create-table",
    "upgrade-table",
    "dry-run",
    "check-config",
    "debug",
    "version",
    "help",
)


def _two_dashes(word: str) -> str:
    """A word of the command line; ``--config`` for ``-config``."""
    name = word.lstrip("-")
    if name == "create-tables":
        return "--create-table"  # as the later Go releases call it
    return f"-{word}" if word == f"-{name}" and name.partition("=")[0] in _LONG else word


def makeService(options: Options) -> IService:
    """
    Make the service, for twistd.

    Ends the process with one line where the service can't be made: twistd would print a traceback.
    """
    _open_standard_files()
    from twisted.internet import reactor

    early = _early_hang_ups(options)
    service, form = _service(options, reactor)
    try:
        observer = of_twistd(options.parent or {}, reactor, form)
    except StartupError as error:
        sys.exit(f"dalga: {error}")
    service.observer = observer
    if observer is None:
        service.twistds = text_to_syslog(options.parent or {})
    _take_signals(service, reactor, early)
    return service


def _early_hang_ups(options: Options) -> EarlyHangUps | None:
    """Take the hang-ups during the start. None for work on the table, which any hang-up ends."""
    is_for_table = options["create-table"] or options["upgrade-table"]
    return None if is_for_table else EarlyHangUps()


def _take_signals(service: Daemon, reactor: Any, early: EarlyHangUps | None) -> None:
    """Take the signals once the reactor runs."""

    def leave(end: Callable[[], NoReturn]) -> None:
        service.abandon()
        if service.observer is None:  # twistd's own has written each line by the time it returns
            end()
        service.observer.leave(end)

    reactor.callWhenRunning(take_signals, reactor, service.hang_up, leave, early=early)


def _service(options: Options, reactor: Any) -> tuple[Daemon, Form]:
    """
    The service that the options ask for, and how the lines of its log look. Where they ask for a
    table, or the service can't be made, the process ends here.
    """
    if options["check-config"]:
        sys.exit(_check(options))
    # Not above: Klein installs the reactor, whose files come after the standard ones.
    from dalga.service import make_daemon

    read = _reader(options)
    try:
        config = read()
        user = _user(options.parent or {}, config)
        if options["create-table"] or options["upgrade-table"]:
            _see_to_table(options, config, reactor, user)
            sys.exit(0)
        log_from(config.log.level)
        form = JsonLines() if config.log.format is LogFormat.JSON else TextLines()
        return make_daemon(config, reactor, user, read), form
    except TableExists as error:
        print(error)
        sys.exit(0)
    except ConfigError as error:
        sys.exit("\n".join(f"dalga: {mistake}" for mistake in error.mistakes))
    except StartupError as error:
        sys.exit(f"dalga: {error}")


def _reader(options: Options) -> Callable[[], Config]:
    """
    What reads the configuration that the options ask for: now, and again at each reload.

    twistd may change the folder meanwhile (`--rundir`), so the file's path is made absolute.
    """
    path = options["config"]
    absolute = None if path is None else os.path.abspath(path)
    environ = dict(os.environ)
    has_begun = False

    def read() -> Config:
        nonlocal has_begun
        # The start names the file as it was named.
        config = load_config(absolute if has_begun else path, environ, options["workers"])
        has_begun = True
        return _with_debug(config, options)

    return read


def _with_debug(config: Config, options: Options) -> Config:
    """The configuration with the option ``--debug``."""
    if not options["debug"]:
        return config
    return replace(
        config,
        log=replace(config.log, level=LogLevel.DEBUG),
        origins={**config.origins, ("log", "level"): "--debug"},
    )


def _check(options: Options) -> int:
    """
    Print what the configuration comes to, or all mistakes in it: see `dalga.checking`.

    :return: the exit status.
    """
    from dalga.checking import unusable_files

    config, mistakes = load(options["config"], os.environ, options["workers"])
    mistakes = [*mistakes, *unusable_files(config)]
    try:
        _user(options.parent or {}, config)
    except StartupError as error:
        mistakes.append(str(error))
    for mistake in mistakes:
        print(f"dalga: {mistake}", file=sys.stderr)
    if mistakes:
        return 1
    for note in config.notes:
        print(f"dalga: {note}", file=sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):  # an output of ASCII gets every line all the same
        sys.stdout.reconfigure(errors="backslashreplace")
    for line in lines_of(_with_debug(config, options)):
        print(line)
    return 0


def _see_to_table(options: Options, config: Config, reactor: Any, user: User) -> None:
    """Create or upgrade the table, and print what was done."""
    from dalga.service import create_table, upgrade_table

    if options["create-table"]:
        print(create_table(config, reactor, user))
        return
    dry_run = bool(options["dry-run"])
    with closing(upgrade_table(config, reactor, dry_run, user)) as lines:
        for line in lines:
            print(line, flush=True)


def _user(twistd: Mapping[str, Any], config: Config) -> User:
    """
    The user that the process will be once it runs.

    :param twistd: twistd's own options; none with the ``dalga`` command.
    :raises StartupError: where that process could not reach the jobs' file.
    """
    if twistd.get("chroot") is not None and isinstance(config.database, SQLiteConfig):
        raise StartupError(
            f"with twistd's --chroot, SQLite file {config.database.path!r} would be out of reach "
            "once dalga runs: leave --chroot out, or use [mysql]"
        )
    return User(twistd.get("uid"), twistd.get("gid"))


def _open_standard_files() -> None:
    """
    Open the standard input, output and error on ``/dev/null`` where they are closed (by ``>&-``).

    Else the next files to be opened, such as sockets, would get the numbers 0 to 2. twistd closes
    these numbers when it detaches, and printed lines would go to those sockets.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def main(argv: Sequence[str] | None = None) -> int:
    """
    The ``dalga`` command: run the daemon in the foreground, and log to the standard output.

    :return: the exit status.
    """
    _open_standard_files()
    # Until the daemon runs there is nothing to end in order, so Ctrl-C kills the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["token"]:
        return token(given[1:])
    options = Options()  # type: ignore[no-untyped-call]
    options.synopsis = f"Usage: dalga {options.synopsis}\n       dalga token --help"
    try:
        options.parseOptions(given)
    except UsageError as error:
        print(f"dalga: {error}; see dalga --help", file=sys.stderr)
        return 2
    from twisted.internet import reactor

    early = _early_hang_ups(options)
    service, form = _service(options, reactor)
    service.observer = observer = standard_output(reactor, form)
    _take_signals(service, reactor, early)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    service.privilegedStartService()  # type: ignore[no-untyped-call]
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    try:
        reactor.run()
    finally:
        observer.flush()
    return 0
