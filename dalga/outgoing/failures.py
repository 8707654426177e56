"""
Why a POST failed: a kind, for readers that count, and words, for the operator.

The words are one sentence. They say what happened, with which server, and they end in "nothing was
sent" if the endpoint can't have got the POST and that is not plain. The functions take exceptions
and stages. The retries of a run do not depend on either: every outcome with an error has the status
None, and is retried.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from OpenSSL.SSL import Error as TLSError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from dalga.model.attempt import ErrorKind
from dalga.outgoing.lookup import Denied
from dalga.outgoing.trust import Refused


class Why(NamedTuple):
    """Why there is no answer to a POST."""

    kind: ErrorKind
    words: str


class PostFailed(Exception):
    """There is no answer to a POST."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.words)
        self.why = why


class BadAnswer(Exception):
    """The bytes from the server can't be read as an answer."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.words)
        self.why = why


class Server(Protocol):
    """How words name the server of a POST. `Route` is one."""

    #: The host whose addresses are looked up.
    resolved: str
    #: What is connected to: the server, or the proxy on the way to it.
    peer: str

    def __str__(self) -> str:
        """The server's host and port."""


class Stage(IntEnum):
    """How far a POST has come. On an idle connection it comes from NEW to CONNECTED at once."""

    #: It has not asked for a connection yet.
    NEW = 0
    #: It waits for the addresses of its host.
    RESOLVING = 1
    #: It waits for one of the addresses to take a connection, and for a proxy to make one.
    CONNECTING = 2
    #: It waits for the end of TLS's handshake.
    HANDSHAKE = 3
    #: Its connection can send it, or has sent it.
    CONNECTED = 4


#: At most this much of what a server has sent is shown, in octets.
SHOWN = 60

#: Why a POST was not sent that had a connection.
CLOSED_BEFORE = Why(ErrorKind.CLOSED, "the connection was closed before the POST, nothing was sent")
SPOKE_BEFORE = Why(
    ErrorKind.MALFORMED, "the server sent something before the POST, nothing was sent"
)
#: A mistake of ours.
MISTAKE = Why(ErrorKind.INTERNAL, "internal error, which Dalga's log describes")


def no_http(line: bytes) -> BadAnswer:
    """:param line: what the answer begins with."""
    return BadAnswer(Why(ErrorKind.MALFORMED, f"the answer is not HTTP: {start_of(line)}"))


def malformed(why: str) -> BadAnswer:
    """:param why: the rest of a sentence that begins with "the answer is malformed HTTP:"."""
    return BadAnswer(Why(ErrorKind.MALFORMED, f"the answer is malformed HTTP: {why}"))


def too_long(limit: int) -> BadAnswer:
    """:param limit: how long an answer's head may be, in bytes."""
    return BadAnswer(
        Why(ErrorKind.TOO_LARGE, f"the answer's headers are longer than {limit // 1024} KiB")
    )


def unsendable(what: str) -> PostFailed:
    """:param what: the start of a sentence on a part of a job that no request can have."""
    return PostFailed(Why(ErrorKind.INTERNAL, f"{what}, nothing was sent"))


def start_of(data: bytes) -> str:
    """The start of what a server has sent, as one line of the log can show it."""
    return repr(data[:SHOWN])[1:] + ("..." if len(data) > SHOWN else "")


def no_answer(timeout: float) -> Why:
    """:param timeout: within which no answer came, in seconds."""
    return Why(ErrorKind.TIMEOUT, f"no answer within {timeout:g} s")


def given_up(may_have_sent: bool) -> Why:
    """Why Dalga itself has ended a POST."""
    before = "there was an answer" if may_have_sent else "anything was sent"
    return Why(ErrorKind.CLOSED, f"given up before {before}")


def too_late(stage: Stage, server: Server, timeout: float) -> Why:
    """
    Why a POST was not sent before its deadline.

    :param timeout: in seconds.
    """
    match stage:
        case Stage.RESOLVING:
            kind, what = ErrorKind.DNS, f"could not resolve host name {server.resolved}"
        case Stage.CONNECTING:
            through = "" if server.peer == str(server) else f" through {server.peer}"
            kind, what = ErrorKind.CONNECT, f"could not connect to {server}{through}"
        case Stage.NEW | Stage.CONNECTED:
            kind, what = ErrorKind.TIMEOUT, f"no time was left for the POST to {server}"
        case Stage.HANDSHAKE:
            kind, what = ErrorKind.TLS, f"could not agree on TLS with {server}"
    return Why(kind, f"{what} within {timeout:g} s, nothing was sent")


def no_tunnel(proxy: str, what: str, server: str) -> Why:
    """
    Why a proxy has made no connection.

    :param proxy: for sentences, with its host and port.
    :param what: what the proxy did.
    """
    return Why(
        ErrorKind.CONNECT,
        f"{proxy} {what} when it was asked for a connection to {server}, nothing was sent",
    )


def not_connected(error: BaseException | None, server: Server) -> Why | None:
    """Why there was no connection; None for an exception that is not expected."""
    host, peer = server.resolved, server.peer
    match error:
        case PostFailed(why=why):
            return why
        case DNSLookupError():
            return Why(ErrorKind.DNS, f"could not resolve host name {host}: {error.args[0]}")
        case Denied():
            words = f"{host} has no public address, and deny = private allows no other"
        case ConnectionRefusedError():
            words = f"connection refused by {peer}"
        case TimeoutError():
            words = f"{peer} took too long to accept the connection"
        case ConnectError(osError=int(number)):
            words = f"could not connect to {peer}: {os.strerror(number)}"
        case ConnectError():
            words = f"could not connect to {peer}"
        case _:
            return None
    return Why(ErrorKind.CONNECT, words)


def not_agreed(error: BaseException | None, server: str) -> Why | None:
    """Why a connection ended in the TLS handshake; None for an exception that is not expected."""
    if isinstance(error, ConnectionClosed):
        return Why(
            ErrorKind.TLS, f"{server} closed the connection in the TLS handshake, nothing was sent"
        )
    return _tls(error, server)


def broken_off(error: BaseException | None, server: str, begun: bool) -> Why | None:
    """
    Why a connection ended before the answer did; None for an exception that is not expected.

    :param begun: whether anything of the answer had come.
    """
    if isinstance(error, ConnectionClosed):
        when = "in the middle of the answer" if begun else "before an answer"
        return Why(ErrorKind.CLOSED, f"the connection was closed {when}")
    return _tls(error, server)


def _tls(error: BaseException | None, server: str) -> Why | None:
    match error:
        case Refused(why=why):
            return Why(ErrorKind.TLS, f"TLS: the certificate of {server} {why}")
        case TLSError():
            return Why(ErrorKind.TLS, f"TLS with {server} failed: {_tls_reason(error)}")
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
