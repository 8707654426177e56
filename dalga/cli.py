"""
The ``dalga`` command, and what the twistd plugin needs: one set of options for both.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService
from twisted.logger import globalLogBeginner
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from dalga import __version__
from dalga.config.load import load_config
from dalga.config.sections import Config, SQLiteConfig
from dalga.errors import ConfigError, StartupError, TableExists
from dalga.log import LineObserver, log_debug
from dalga.privileges import User
from dalga.store.clock import steady_seconds

if TYPE_CHECKING:
    from dalga.service import DalgaService

#: Signals so close together, in seconds, are one request: timeout(1) and shells send it to the
#: process and to its group.
AT_ONCE = 0.5

#: How long the last log lines may take after a second signal, in seconds: nobody may be reading.
LAST_LINES = 1.0


class Options(UsageOptions):
    """What stands on the command line."""

    synopsis = (
        "[--config FILE] [--create-table | --upgrade-table [--dry-run]] [--debug] [--version]"
    )
    longdesc = (
        "Cron as a service. Schedule jobs over HTTP; they are kept in a table and POSTed to your "
        "endpoint on time. Without --config, jobs live in an SQLite file in the working directory."
    )
    optParameters = [  # noqa: RUF012 - Twisted reads it from the class
        ["config", "c", None, "The configuration file: as dalga.ini.example, or TOML or YAML."],
    ]
    optFlags = [  # noqa: RUF012
        ["create-table", None, "Create the jobs table, and end."],
        ["upgrade-table", None, "Upgrade an older jobs table, or one of a Go release, and end."],
        ["dry-run", None, "With --upgrade-table: only say what that would do."],
        ["debug", "d", "Log more."],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take the Go original's spellings as well: ``-config``, ``-create-tables``."""
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
        if self["dry-run"] and not self["upgrade-table"]:
            raise UsageError("--dry-run goes with --upgrade-table only")

    def parseArgs(self, *arguments: str) -> None:
        """There are no arguments beside the options."""
        if arguments:
            raise UsageError(f"{arguments[0]!r} is no option, and there is nothing else to give")

    def opt_version(self) -> NoReturn:
        """Show the version, and end."""
        print(f"dalga {__version__}")
        sys.exit(0)

    opt_h = UsageOptions.opt_help


_LONG = ("config", "create-table", "upgrade-table", "dry-run", "debug", "version", "help")


def _two_dashes(word: str) -> str:
    name = word.lstrip("-")
    if name == "create-tables":
        return "--create-table"  # as the later Go releases call it
    return f"-{word}" if word == f"-{name}" and name.partition("=")[0] in _LONG else word


def makeService(options: Options) -> IService:
    """
    The service, for twistd. It ends the process with one line where it can't be built, which is
    what twistd's own errors at this point do not do.
    """
    _open_standard_files()
    from twisted.internet import reactor

    service = _service(options, reactor)
    # twistd's observer has written each line by the time that it returns.
    reactor.callWhenRunning(_take_signals, reactor, service.hang_up, lambda end: end())
    return service


def _service(options: Options, reactor: Any) -> DalgaService:
    """See `makeService`."""
    # Not above: Klein installs the reactor, whose files come after the standard ones.
    from dalga.service import create_table, make_service, upgrade_table

    try:
        config = load_config(options["config"], os.environ)
        user = _user(options.parent or {}, config)
        if options["create-table"]:
            print(create_table(config, reactor, user))
            sys.exit(0)
        if options["upgrade-table"]:
            dry_run = bool(options["dry-run"])
            with closing(upgrade_table(config, reactor, dry_run, user)) as lines:
                for line in lines:
                    print(line, flush=True)
            sys.exit(0)
        if options["debug"]:
            log_debug()
        service = make_service(config, reactor, user)
    except TableExists as error:
        print(error)
        sys.exit(0)
    except (ConfigError, StartupError) as error:
        sys.exit(f"dalga: {error}")
    return service


def _user(twistd: Mapping[str, Any], config: Config) -> User:
    """
    Who the process will be.

    :param twistd: its options, of which the ``dalga`` command has none.
    :raises StartupError: where the jobs' file would be out of reach by then.
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

    Else the next files to be opened, sockets among them, would get their numbers: twistd closes
    these when it detaches, and what is printed would go there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _take_signals(
    reactor: Any,
    hang_up: Callable[[Callable[[], None]], None],
    leave: Callable[[Callable[[], NoReturn]], None],
) -> None:
    """
    Let SIGTERM and SIGINT end the process with status 0, as a stop that was asked for, and pass
    SIGHUP on.

    twistd's own handlers would have the process killed by the same signal once more after all is
    done. A second signal is not waited for: the process ends at once, and leaves its runs to their
    leases.

    :param hang_up: is called with each SIGHUP, and given a function that stops as SIGTERM does.
    :param leave: has the last log lines written, and then calls the function that it is given.
    """
    first: list[float] = []

    def stop(number: int) -> None:
        now = steady_seconds()
        if not first:
            first.append(now)
            reactor.callFromThread(reactor.stop)
        elif now - first[0] > AT_ONCE:
            end = partial(os._exit, 128 + number)
            signal.signal(signal.SIGALRM, lambda *_: end())
            signal.setitimer(signal.ITIMER_REAL, LAST_LINES)
            os.write(2, b"dalga: asked to stop again: not waiting any longer\n")
            leave(end)

    signal.signal(signal.SIGTERM, lambda number, _: stop(number))
    signal.signal(signal.SIGINT, lambda number, _: stop(number))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) wants it
        signal.signal(signal.SIGHUP, lambda number, _: hang_up(partial(stop, number)))


def main(argv: Sequence[str] | None = None) -> int:
    """
    The ``dalga`` command: run in the foreground, and log to the standard output.

    :return: the exit status.
    """
    _open_standard_files()
    # Until the daemon runs there is nothing to end in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = Options()  # type: ignore[no-untyped-call]
    options.synopsis = f"Usage: dalga {options.synopsis}"
    try:
        options.parseOptions(argv)
    except UsageError as error:
        print(f"dalga: {error}; see dalga --help", file=sys.stderr)
        return 2
    from twisted.internet import reactor

    service = _service(options, reactor)
    if isinstance(sys.stdout, TextIOWrapper):
        # No line is to be lost for a letter that the output has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    observer = LineObserver(sys.stdout, lambda flush: reactor.callLater(0, flush))
    reactor.callWhenRunning(_take_signals, reactor, service.hang_up, observer.leave)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    service.privilegedStartService()  # type: ignore[no-untyped-call]
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    try:
        reactor.run()
    finally:
        observer.flush()
    return 0
