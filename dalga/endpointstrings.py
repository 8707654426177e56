"""
Twisted's strings for server endpoints, such as ``ssl:443:privateKey=key.pem``: what each asks for.

Twisted's own parser reads them, so each kind is taken that Twisted or a plugin of it knows. The
endpoint that it makes is told to listen, on a stand-in for the reactor. The stand-in opens nothing,
and notes what the endpoint asks the reactor for::

    "tcp:80"                    listenTCP(80, door)
    "ssl:443:privateKey=k.pem"  listenSSL(443, door, the context of k.pem)
    "unix:/run/dalga.sock"      listenUNIX("/run/dalga.sock", door, mode=0o666)
    "systemd:domain=INET:..."   adoptStreamPort(3, AF_INET, door)
    "haproxy:tcp:80"            listenTCP(80, a factory of haproxy's that hands on to the door)

So the sockets can be opened before there is a reactor that runs, and be shared by workers. What
always holds: to ask once more opens nothing either, and reads the certificates again.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import Error as TLSError
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from dalga.config.content import file_content
from dalga.config.incoming import parts_of
from dalga.errors import StartupError

#: For sentences: the key that has the strings, and examples.
OF_STRINGS = "endpoint in [listen]"
SUCH_AS = (
    "tcp:34006:interface=127.0.0.1, ssl:34006:privateKey=key.pem:certKey=cert.pem, "
    "unix:/run/dalga.sock:mode=660 or systemd:domain=INET:index=0"
)

#: The parameters that name files, and how much of a file is read, in octets.
_FILES = frozenset({"privateKey", "certKey", "extraCertChain", "dhParameters"})
MOST = 2**24

#: What Python says of a text that is no number, with the base and the text; and the words for it.
_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base (\d+): (.*)", re.DOTALL)
_NUMBERS = {"8": "number of octal digits"}


@implementer(IProtocolNegotiationFactory)
class Door(Factory):
    """Stands for the site, which is not there yet when an endpoint is told to listen."""

    noisy = False
    site: IProtocolFactory

    def buildProtocol(self, addr: Any) -> Any:
        """Called with each connection."""
        return self.site.buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS offers (ALPN): HTTP/1.1 alone, which the site has."""
        return [b"http/1.1"]


@dataclass(frozen=True, slots=True)
class Entrance:
    """What connections go through on their way to the site."""

    #: At the end of it.
    door: Door
    #: At its begin, inside of TLS.
    factory: IProtocolFactory
    #: Makes the contexts of TLS; None for connections that are not encrypted, or whose certificates
    #: the factory sees to.
    contexts: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether no factory of a plugin is on it. Such a factory may keep to one process."""
        return self.factory is self.door

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.contexts is not None or isinstance(self.factory, TLSMemoryBIOFactory)

    @property
    def certificate(self) -> bytes:
        """The digest of the certificate that clients are shown; b"" for none that is known here."""
        certificate = getattr(self.contexts, "certificate", None)
        return b"" if certificate is None else bytes(certificate.digest("sha256"))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a string asks for: an address of TCP, the path of a local socket, or an open one."""

    entrance: Entrance
    host: str = ""
    port: int = 0
    path: str = ""
    #: The permissions of that path's file.
    mode: int = 0
    #: A copy of a socket that this process was started with.
    adopted: socket.socket | None = None


def asked(text: str, key: str) -> Asked:
    """
    What a string asks for. Opens nothing, and reads the certificates that it names.

    :param key: where the string stands, for sentences.
    :raises StartupError: if there is a mistake in it, or in a certificate.
    """
    door, notes = Door(), _Notes()
    reactor: Any = notes
    try:
        _check_files(text)
        results: list[Any] = []
        serverFromString(reactor, text).listen(door).addBoth(results.append)
        if results and isinstance(results[0], Failure):
            results[0].raiseException()
        if notes.noted is None:
            raise ValueError("this kind opens no socket at once")
        entrance = notes.noted.entrance
        if entrance.contexts is not None:
            entrance.contexts.getContext()  # a key that is another certificate's is found here
    except (TLSError, CryptoError):
        raise _refusal(
            key, text, "its key and its certificate can't be used, or don't go together"
        ) from None
    except OSError as error:
        file = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise _refusal(key, text, f"{file}{error.strerror or error}") from error
    except LookupError as error:  # by its index, or by its name
        raise _refusal(key, text, _handed_none(text)) from error
    except Exception as error:
        # Of the words on a wrong parameter, the name of Twisted's function says nothing.
        words = str(error) if isinstance(error, ValueError) else str(error).rpartition("() ")[2]
        if no_number := _NO_NUMBER.fullmatch(words):
            words = f"{no_number[2]} is no {_NUMBERS.get(no_number[1], 'number')}"
        why = words.rstrip(".") or type(error).__name__
        raise _refusal(key, text, f"{why}; it takes endpoints such as {SUCH_AS}") from error
    return notes.noted


def _check_files(text: str) -> None:
    """
    Look at the files that a string names. Twisted's parser would wait for a named pipe that nobody
    writes to, and OpenSSL would ask for a key's passphrase at the terminal, also during a reload.

    :raises OSError: if one can't be read, or is no file.
    :raises ValueError: if a private key is encrypted.
    """
    for part in parts_of(text):
        name, _, path = part.partition("=")
        if name in _FILES:
            try:
                content = file_content(path, MOST)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            if b"ENCRYPTED" in content:
                raise ValueError("its key is encrypted: take one without a passphrase")


def _handed_none(text: str) -> str:
    if text.lower().startswith("systemd:"):
        return (
            "systemd has handed no such socket to this process (LISTEN_PID, LISTEN_FDS, "
            "LISTEN_FDNAMES)"
        )
    return f"something is missing; it takes endpoints such as {SUCH_AS}"


def _refusal(key: str, text: str, why: str) -> StartupError:
    return StartupError(f"{key} is {text!r}: {why}")


class _Notes:
    """As much of a reactor as endpoints need: notes what they ask for."""

    def __init__(self) -> None:
        self.noted: Asked | None = None

    def _note(self, asked: Asked) -> Any:
        self.noted = asked
        return self

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See `IReactorTCP`."""
        return self._note(Asked(_entrance(factory), interface, port))

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> Any:
        """See `IReactorSSL`."""
        return self._note(Asked(_entrance(factory, contextFactory), interface, port))

    def listenUNIX(
        self,
        address: str | bytes,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: object = 0,
    ) -> Any:
        """See `IReactorUNIX`."""
        path = os.path.abspath(os.fsdecode(address))
        return self._note(Asked(_entrance(factory), path=path, mode=mode))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See `IReactorSocket`."""
        copy = socket.socket(fileno=os.dup(fileDescriptor))
        return self._note(Asked(_entrance(factory), adopted=copy))


def _entrance(factory: Any, contexts: Any = None) -> Entrance:
    """
    :param factory: the door, or a factory that wraps it, or one that wraps such a factory.
    """
    door = factory
    while not isinstance(door, Door):
        door = door.wrappedFactory
    return Entrance(door, factory, contexts)
