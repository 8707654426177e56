"""What the ``dalga`` command and twistd run: one instance, or the supervisor of several workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from dalga.log import LineObserver
from dalga.signals import has_terminal

#: How long (seconds) after a hang-up the terminal is looked for.
SHELL_ENDS = 0.1


class Daemon(Service):
    """A service that decides what a hang-up means, and by what the process logs."""

    _reactor: Any
    #: Whether the process had a terminal when it began to run.
    _in_terminal = False

    #: By what the process logs; None for an observer of twistd's own.
    observer: LineObserver | None = None
    #: An observer of twistd's that is made here; None where twistd makes it.
    twistds: ILogObserver | None = None

    def setServiceParent(self, parent: object) -> None:
        """
        Called by twistd with its application, before it begins to log. twistd logs by the observer
        that the application has.
        """
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        observer = self.observer or self.twistds
        if observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """Called in the process that the daemon becomes."""
        super().startService()  # type: ignore[no-untyped-call]
        self._in_terminal = has_terminal()

    def hang_up(self, stop: Callable[[], None]) -> None:
        """
        Called at each hang-up (SIGHUP): have the configuration read again. But if the daemon was
        started in a terminal, and the terminal is gone, the daemon stops.

        This method alone decides that. It is called by the signal's handler, in the middle of
        whatever the reactor is doing.

        :param stop: stops the daemon as SIGTERM does.
        """
        self._reactor.callFromThread(self._hung_up, stop)

    def _hung_up(self, stop: Callable[[], None]) -> None:
        if not self._in_terminal:
            self.reload()
        else:
            # A shell that ends sends the signal a moment before it lets go of the terminal.
            self._reactor.callLater(SHELL_ENDS, self._look_for_terminal, stop)

    def _look_for_terminal(self, stop: Callable[[], None]) -> None:
        if has_terminal():
            self.reload()
        else:
            stop()

    def reload(self) -> None:
        """Read the configuration again, and go by it. Called in the reactor's thread."""

    def abandon(self) -> None:
        """
        The process ends at once, by a second signal. Called by that signal's handler.
        """
