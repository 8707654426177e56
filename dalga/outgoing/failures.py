"""
Words for what went wrong with a POST, for the operator's log.

An outcome's error is one sentence. It says what happened, with which server, and it ends in
"nothing was sent" if the endpoint can't have got the POST and that is not plain. The functions take
exceptions and stages, and return the sentence. The retries of a run do not depend on it: every
outcome with an error has the status None, and is retried.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from dalga.outgoing.trust import Refused


class PostFailed(Exception):
    """
    There is no answer to a POST.

    :param args: why, in words for the operator.
    """


class BadAnswer(Exception):
    """
    The bytes from the server can't be read as an answer.

    :param args: why, in words for the operator.
    """


class Stage(IntEnum):
    """How far a POST has come. On an idle connection it comes from NEW to CONNECTED at once."""

    #: It has not asked for a connection yet.
    NEW = 0
    #: It waits for the addresses of its host.
    RESOLVING = 1
    #: It waits for one of the addresses to take a connection.
    CONNECTING = 2
    #: It waits for the end of TLS's handshake.
    HANDSHAKE = 3
    #: Its connection can send it, or has sent it.
    CONNECTED = 4


#: Why a POST was not sent that had a connection.
CLOSED_BEFORE = "the connection was closed before the POST, nothing was sent"
SPOKE_BEFORE = "the server sent something before the POST, nothing was sent"


def no_http(line: bytes) -> BadAnswer:
    """:param line: what the answer begins with."""
    return BadAnswer(f"the answer is not HTTP: {start_of(line)}")


def malformed(why: str) -> BadAnswer:
    """:param why: the rest of a sentence that begins with "the answer is malformed HTTP:"."""
    return BadAnswer(f"the answer is malformed HTTP: {why}")


def too_long(limit: int) -> BadAnswer:
    """:param limit: how long an answer's head may be, in bytes."""
    return BadAnswer(f"the answer's headers are longer than {limit // 1024} KiB")


def start_of(data: bytes) -> str:
    """At most 60 bytes of what a server has sent, as one line of the log can show them."""
    return repr(data[:60])[1:] + ("..." if len(data) > 60 else "")


def too_late(stage: Stage, host: str, server: str, timeout: float) -> str:
    """
    Why a POST was not sent before its deadline.

    :param server: its host and port.
    :param timeout: in seconds.
    """
    match stage:
        case Stage.RESOLVING:
            what = f"could not resolve host name {host}"
        case Stage.CONNECTING:
            what = f"could not connect to {server}"
        case Stage.NEW | Stage.CONNECTED:
            what = f"no time was left for the POST to {server}"
        case Stage.HANDSHAKE:
            what = f"could not agree on TLS with {server}"
    return f"{what} within {timeout:g} s, nothing was sent"


def not_connected(error: BaseException | None, host: str, server: str) -> str | None:
    """Why there was no connection; None for an exception that is not expected."""
    match error:
        case DNSLookupError():
            return f"could not resolve host name {host}: {error.args[0]}"
        case ConnectionRefusedError():
            return f"connection refused by {server}"
        case TimeoutError():
            return f"{server} took too long to accept the connection"
        case ConnectError(osError=int(number)):
            return f"could not connect to {server}: {os.strerror(number)}"
        case ConnectError():
            return f"could not connect to {server}"
    return None


def not_agreed(error: BaseException | None, server: str) -> str | None:
    """Why a connection ended in the TLS handshake; None for an exception that is not expected."""
    if isinstance(error, ConnectionClosed):
        return f"{server} closed the connection in the TLS handshake, nothing was sent"
    return _tls(error, server)


def broken_off(error: BaseException | None, server: str, begun: bool) -> str | None:
    """
    Why a connection ended before the answer did; None for an exception that is not expected.

    :param begun: whether anything of the answer had come.
    """
    if isinstance(error, ConnectionClosed):
        when = "in the middle of the answer" if begun else "before an answer"
        return f"the connection was closed {when}"
    return _tls(error, server)


def _tls(error: BaseException | None, server: str) -> str | None:
    match error:
        case Refused(why=why):
            return f"TLS: the certificate of {server} {why}"
        case TLSError():
            return f"TLS with {server} failed: {_tls_reason(error)}"
    return None


def _tls_reason(error: Any) -> str:
    """The words of OpenSSL's error queue, such as "certificate verify failed"."""
    entries = error.args[0] if error.args else ()
    if isinstance(entries, list | tuple):
        words = [str(entry[-1]) for entry in entries if entry and entry[-1]]
        if "wrong version number" in words:
            return "what answers there does not speak TLS"
        if words:
            return ", ".join(words)[:200]  # a line of the log stays a line
    return "OpenSSL gives no reason"
