"""What the ``dalga`` command and twistd run: one instance, or the supervisor of several workers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from dalga.log import LineObserver


class Daemon(Service):
    """A service that decides what a hang-up means, and by what the process logs."""

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

    def hang_up(self, stop: Callable[[], None]) -> None:
        """
        Called at each hang-up (SIGHUP), such as the closing of a terminal. A hang-up stops the
        daemon.

        This method alone decides that; a reload would begin here. It is called by the signal's
        handler, in the middle of whatever the reactor is doing.

        :param stop: stops the daemon as SIGTERM does.
        """
        stop()

    def abandon(self) -> None:
        """
        The process ends at once, by a second signal. Called by that signal's handler.
        """
