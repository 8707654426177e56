"""
Dalga's loggers: twisted.logger's, with the debug level left out unless it is asked for.

twistd's own log observers write whatever they are given, so the choice is made here.
"""

from __future__ import annotations

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)


def logger(namespace: str) -> Logger:
    """
    :param namespace: the module's name.
    """
    return Logger(namespace, observer=FilteringLogObserver(globalLogPublisher, [_levels]))


def log_debug() -> None:
    """From now on, log the debug level too."""
    _levels.setLogLevelForNamespace("dalga", LogLevel.debug)
