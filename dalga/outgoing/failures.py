"""
Words for what went wrong with a POST, for the operator's log.

An outcome's error is one sentence that says what happened, to whom, and whether the endpoint may
have got the POST. The functions take exceptions and stages, and give that sentence.
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
    A POST has no answer.

    :param args: why, in words for the operator.
    """


class BadAnswer(Exception):
    """
    What came back can't be read as an answer.

    :param args: why, in words for the operator.
    """


class Stage(IntEnum):
    """How far a POST has come. One on an idle connection never resolves nor connects."""

    #: It has not asked for a connection yet.
    NEW = 0
    #: It waits for the addresses of its host.
    RESOLVING = 1
    #: It waits for one of the addresses to take a connection.
    CONNECTING = 2
    #: It waits for the end of TLS's handshake.
    AGREEING = 3
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
    """At most 60 bytes of what somebody else has sent, in visible characters."""
    return repr(data[:60])[1:] + ("..." if len(data) > 60 else "")


def too_late(stage: Stage, host: str, server: str, timeout: float) -> str:
    """
    Why there was no answer at the deadline of a POST that the server can't have got.

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
        case Stage.AGREEING:
            what = f"could not agree on TLS with {server}"
    return f"{what} within {timeout:g} s, nothing was sent"


def not_connected(error: BaseException | None, host: str, server: str) -> str | None:
    """Why there was no connection; None for what was not expected to happen."""
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
    """Why a connection ended in the TLS handshake; None for what was not expected to happen."""
    if isinstance(error, ConnectionClosed):
        return f"{server} closed the connection in the TLS handshake, nothing was sent"
    return _tls(error, server)


def broken_off(error: BaseException | None, server: str, begun: bool) -> str | None:
    """
    Why a connection ended before its answer did; None for what was not expected to happen.

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
            return ", ".join(words)[:200]
    return "OpenSSL gives no reason"
