"""
The addresses of the endpoint's host: one look-up at a time, whose answer all POSTs share.

A look-up, getaddrinfo(3), holds up its thread until the resolver answers: for half a minute or more
if the resolver is silent. So each look-up has a thread of its own, and there are at most `THREADS`
of them at a time. The end of the process waits for none of them.

How long an answer is used goes by its age, as getaddrinfo does not tell the answer's time to live.
The use of an old answer follows RFC 8767. In seconds of the reactor's clock:

    its age         a POST that needs a connection
    up to RENEW     uses it
    up to FRESH     uses it, and a look-up begins
    up to STALE     waits PATIENCE for a look-up, and uses the old answer if no new one comes
    more, or none   waits for a look-up

If the resolver says that there is no such host, that is an answer, and the old answer is dropped.
So it is with an answer whose addresses are all denied. POSTs connect to the addresses of an answer,
and never look the host up themselves: no address is connected to that was not looked at here.

`store/dial.py` looks up the database's host by rules of its own, and says why.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from socket import AF_INET6, EAI_NONAME, SOCK_STREAM, gaierror, getaddrinfo
from threading import Thread
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

Addresses = Sequence[IPv4Address | IPv6Address]

#: The ages of the module's table, in seconds.
RENEW = 5.0
FRESH = 10.0
STALE = 3600.0
#: A POST waits this long (seconds) for a new answer before it uses an old one, as RFC 8767 section
#: 5 recommends.
PATIENCE = 1.8

#: After this many seconds without an answer a look-up counts as stuck, and the next POST begins
#: another one. (glibc gives up after 5 to 30 s, but not all modules that glibc asks do.)
STUCK = 30.0
#: How many look-ups are under way at once, at most: there is a second only if the first is stuck.
THREADS = 4

#: The errors of getaddrinfo(3) by which a resolver says that there is no such host.
NO_SUCH_HOST = (EAI_NONAME, getattr(socket, "EAI_NODATA", EAI_NONAME))


class Denied(Exception):
    """The host has addresses, and none that is allowed."""


class Lookup:
    """
    The addresses of one host.

    :param reactor: its ``seconds`` measure an answer's age.
    :param host: a name in ASCII, or an address, which is not looked up.
    :param allows: whether an address (a text) may be connected to. The others are left out.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, allows: Callable[[str], bool] | None = None
    ) -> None:
        self._reactor = reactor
        self._allows = allows
        self._host = host
        self._port = port
        #: The host's address, where the host is one.
        self._fixed: Addresses | None = None
        if isIPAddress(host):
            self._fixed = [IPv4Address("TCP", host, port)]
        elif isIPv6Address(host):
            self._fixed = [IPv6Address("TCP", host, port)]
        #: The last answer, and when the look-up that brought it began, in the reactor's seconds.
        self._known: Addresses | None = None
        self._since = 0.0
        #: Whether connections failed, so that the answer may be out of date.
        self._doubted = False
        #: Whether the last look-up has had no answer for `PATIENCE`, or has failed for the time
        #: being.
        self._silent = False
        #: The Deferreds of the POSTs that wait, in the order in which the POSTs came. (A dict is an
        #: ordered set here.)
        self._waiting: dict[Deferred[Addresses], None] = {}
        #: How many look-ups have no answer yet; how many were begun in all; and when the last of
        #: them began, in the reactor's seconds.
        self._out = 0
        self._count = 0
        self._began = 0.0
        self._impatience: IDelayedCall | None = None

    def addresses(self) -> Deferred[Addresses]:
        """
        The host's addresses, in the order in which to try them.

        Cancel the Deferred to wait no more; the look-up goes on.

        :raises DNSLookupError: in the Deferred, with the resolver's words, if there are none.
        :raises Denied: in the Deferred, if none of them is allowed.
        """
        if self._fixed is not None:
            return maybeDeferred(self._allowed, self._fixed)
        if not self._usable(RENEW):
            self._ask()
        if self._usable(STALE if self._silent else FRESH):
            assert self._known is not None
            return succeed(self._known)
        waiting: Deferred[Addresses] = Deferred(lambda it: self._waiting.pop(it, None))
        self._waiting[waiting] = None
        return waiting

    def doubt(self) -> None:
        """No address has taken a connection: the host may have moved, so look it up again."""
        self._doubted = True

    def give_up(self) -> None:
        """Fail the POSTs that wait at present. Later POSTs wait for a look-up again."""
        self._tell(DNSLookupError("there was no answer before the stop, nothing was sent"))

    def close(self) -> None:
        """Leave no timer. POSTs that wait fail by their own deadline."""
        self._stop_impatience()

    def _stop_impatience(self) -> None:
        if self._impatience is not None and self._impatience.active():
            self._impatience.cancel()

    def _usable(self, age: float) -> bool:
        """Whether there is an answer that is no older than this, in seconds."""
        if self._known is None or (self._doubted and age <= FRESH):
            return False
        return bool(self._reactor.seconds() - self._since < age)

    # The look-up

    def _ask(self) -> None:
        """Begin a look-up, unless one is out that is not stuck yet."""
        now = self._reactor.seconds()
        if self._out and (now - self._began < STUCK or self._out == THREADS):
            return
        self._count += 1
        self._out += 1
        self._began = now
        self._stop_impatience()
        self._impatience = self._reactor.callLater(PATIENCE, self._has_been_silent)
        look_up = (self._count, now)
        # Nothing waits for a daemon thread at the end of the process.
        thread = Thread(target=self._in_thread, args=look_up, name="dalga-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            self._reactor.callLater(0, self._answered, *look_up, error)

    def _in_thread(self, number: int, began: float) -> None:
        found: Addresses | BaseException
        try:
            found = self._allowed(
                [
                    (IPv6Address if family == AF_INET6 else IPv4Address)("TCP", *address)
                    for family, *_, address in getaddrinfo(self._host, self._port, type=SOCK_STREAM)
                ]
            )
        except BaseException as error:
            found = error
        self._reactor.callFromThread(self._answered, number, began, found)

    def _allowed(self, addresses: Addresses) -> Addresses:
        """
        The addresses that are allowed.

        :raises Denied: if there are none.
        """
        if self._allows is None:
            return addresses
        allowed = [address for address in addresses if self._allows(address.host)]
        if not allowed:
            raise Denied
        return allowed

    def _answered(self, number: int, began: float, found: Addresses | BaseException) -> None:
        """
        Take in the result of a look-up.

        :param number: the look-up's number, as `_count` was when it began.
        :param began: when the look-up began, in the reactor's seconds.
        """
        self._out -= 1
        last = number == self._count
        if last:
            self._stop_impatience()
        if not isinstance(found, BaseException):
            if began >= self._since:  # else a later look-up has answered before this one
                self._known, self._since = found, began
                self._silent = self._doubted = False
                self._tell(found)
        elif last:
            is_denied = isinstance(found, Denied)
            says_none = is_denied or (isinstance(found, gaierror) and found.errno in NO_SUCH_HOST)
            if says_none:
                self._known = None
            self._silent = not says_none
            if self._usable(STALE):
                self._tell(self._known)
            elif is_denied:
                self._tell(found)
            else:
                words = found.strerror if isinstance(found, gaierror) else None
                self._tell(DNSLookupError(words or str(found)))

    def _has_been_silent(self) -> None:
        self._silent = True
        if self._usable(STALE):
            self._tell(self._known)

    def _tell(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting:
            if not deferred.called:  # else the answer to another POST has cancelled this one
                deferred.callback(Failure(result) if isinstance(result, Exception) else result)
