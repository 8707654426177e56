"""
How the lines of the log look: as text, or as JSON, one object a line. An event -> its lines.

An attempt's line in both forms::

    2026-03-01T10:00:01+0100 [dalga.dispatch.loglines#warn] 'reports' 'daily': 500 Internal Server
        Error, after 0.031 s, attempt 1; again at 2026-03-01T09:00:02Z
    {"time": "2026-03-01T09:00:01.127Z", "level": "warn", "logger": "dalga.dispatch.loglines",
     "message": "'reports' 'daily': 500 Internal Server Error, after 0.031 s, attempt 1; again ...",
     "path": "reports", "body": "daily", "run_id": "5f0c...-17", "attempt": 1, "method": "POST",
     "endpoint": "default", "status": 500, "error_kind": "status", "elapsed": 0.031}
"""

from __future__ import annotations

import time
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any

from twisted.logger import LogEvent, eventAsText, formatEventAsClassicLogText

#: The members of an object beside time, level, logger, message, worker and traceback, in this
#: order, each where the event has it. docs/running.md says what they mean.
MEMBERS = (
    *("path", "body", "run_id", "attempt", "method", "endpoint", "status", "error_kind"),
    *("elapsed", "late", "instance", "alert", "event", "target", "action", "by"),
)


#: The end of the year 9999, in seconds since 1970.
_LATEST = 253402300800


class TextLines:
    """
    Lines as `twisted.logger.textFileLogObserver` writes them, at a tenth of the cost where an event
    is plain. The format of a plain event needs `str.format` alone, and the time is put into words
    once a second.

    :param tag: stands behind the time in each line, and begins with a space: which process it is.
    """

    def __init__(self, tag: str = "") -> None:
        self._tag = tag
        self._second = 0
        #: The time that lines of `_second` begin with, and the tag.
        self._time = ""

    def of_worker(self, number: int) -> TextLines:
        """See `dalga.log.Form`."""
        return TextLines(f" worker {number}")

    def lines(self, event: LogEvent) -> str:
        """See `dalga.log.Form`."""
        if "log_failure" in event or not str(event.get("log_namespace")).startswith("dalga"):
            return self._classic(event)
        try:
            text = event["log_format"].format_map(event)
        except Exception:
            # Twisted's words say what is wrong with the event.
            return self._classic(event)
        second = int(event["log_time"])
        if second != self._second:
            # In this order, as other threads compare the second.
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
            self._time = now + self._tag
            self._second = second
        text = text.replace("\n", "\n\t")
        return f"{self._time} [{event['log_namespace']}#{event['log_level'].name}] {text}\n"

    def _classic(self, event: LogEvent) -> str:
        """The lines of Twisted's own formatter, with the tag behind their time."""
        return (formatEventAsClassicLogText(event) or "").replace(" [", f"{self._tag} [", 1)


class JsonLines:
    """
    One JSON object a line, in ASCII, whatever the event: nothing in an event makes a second line.

    :param worker: the number of the worker whose lines these are; None for no worker.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._worker = "" if worker is None else f', "worker": {worker}'
        #: The start of the time in lines of a second, with that second.
        self._second: tuple[int, str] = (-1, "")

    def of_worker(self, number: int) -> JsonLines:
        """See `dalga.log.Form`."""
        return JsonLines(number)

    def lines(self, event: LogEvent) -> str:
        """See `dalga.log.Form`."""
        namespace = event.get("log_namespace")
        level = event.get("log_level")
        members = [
            f'{{"time": "{self._time(event.get("log_time"))}"',
            f'"level": "{"info" if level is None else level.name}"',
            f'"logger": {_json("-" if namespace is None else namespace)}',
            f'"message": {encode_basestring_ascii(_message(event))}{self._worker}',
        ]
        if str(namespace).startswith("dalga"):
            # Others may mean something else by these names.
            members += [
                f'"{name}": {_json(value)}'
                for name in MEMBERS
                if (value := event.get(name)) is not None
            ]
        failure = _failure(event)
        if failure is not None:
            members.append(f'"traceback": {encode_basestring_ascii(_traceback(failure))}')
        return ", ".join(members) + "}\n"

    def _time(self, seconds: object) -> str:
        """RFC 3339 in UTC, to the millisecond."""
        if not isinstance(seconds, int | float) or not 0 <= seconds < _LATEST:
            seconds = 0
        whole, rest = divmod(int(seconds * 1000), 1000)
        second, text = self._second  # at once, as other threads may set both
        if second != whole:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            self._second = whole, text
        return f"{text}.{rest:03}Z"


def _failure(event: LogEvent) -> object:
    """The failure of an event; None for none. `twisted.python.log.err` calls it otherwise."""
    if event.get("log_namespace") == "log_legacy":
        return event.get("failure")
    return event.get("log_failure")


def _message(event: LogEvent) -> str:
    if event.get("log_namespace") == "log_legacy" and event.get("failure") is not None:
        return str(event.get("why") or "Unhandled Error")  # the text has the traceback in it
    if "log_failure" not in event:
        try:
            text = event["log_format"].format_map(event)
        except Exception:
            pass  # Twisted's words say what is wrong with the event, or it is one of its own
        else:
            return str(text)
    return eventAsText(
        event, includeTraceback=False, includeTimestamp=False, includeSystem=False
    ).strip()


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback())
    except Exception as error:
        return f"the traceback can't be shown: {error!r}"


def _json(value: object) -> str:
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(value)
    if isinstance(value, float) and isfinite(value):
        return repr(round(value, 6))  # seconds, to the microsecond
    return encode_basestring_ascii(_text(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"it can't be shown: {type(error).__name__}"
