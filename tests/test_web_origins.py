"""Which requests a browser has sent for a page elsewhere."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.web.errors import ForeignRequest
from dalga.web.forwarded import client_address, is_forwarded_https, is_trusted
from dalga.web.origins import (
    LOOPBACK,
    Asked,
    Doors,
    check_cookie,
    check_open,
    check_session,
    granted_origin,
)

HERE = "127.0.0.1"
AT = b"127.0.0.1:34006"
OWN = b"http://127.0.0.1:34006"
EVIL = b"https://evil.example"
OPS = b"https://ops.example.org"
DOORS = Doors(
    hosts=frozenset({"dalga.example.org", "10.0.0.5", "fd00::5"}),
    origins=frozenset({OPS.decode()}),
)

ORIGINS = "origins of [listen]"


def asked(method: bytes = b"GET", path: bytes = b"/status", **keywords: Any) -> Asked:
    return Asked(method, path, **{"host": AT, "own": HERE, **keywords})


def link(path: bytes = b"/", site: bytes = b"cross-site", **keywords: Any) -> Asked:
    return asked(path=path, site=site, **{"mode": b"navigate", "dest": b"document", **keywords})


class TableTestCase(SynchronousTestCase):
    def hold(self, check: Any, table: list[tuple[Asked, str | None]], *more: Any) -> None:
        """Each request with what the refusal says; None where there is none."""
        for request, expected in table:
            try:
                check(request, *more)
            except ForeignRequest as error:
                self.assertIsNotNone(expected, (request, str(error)))
                self.assertIn(str(expected), str(error), request)
            else:
                self.assertIsNone(expected, request)


class HostTests(TableTestCase):
    """P12: without tokens, a name that was given to this machine by others is not answered."""

    def test_hosts(self) -> None:
        refused = "names in hosts of [listen]"
        table: list[tuple[bytes, str, str | None]] = [
            # host, the address that it came to, why not
            (b"", HERE, None),  # HTTP/1.0
            (b"127.0.0.1", HERE, None),
            (b"127.0.0.1:34006", HERE, None),
            (b"127.0.0.1:1", HERE, None),  # a port that is led on
            (b"127.9.9.9", HERE, None),
            (b"localhost", HERE, None),
            (b"LOCALHOST:34006", HERE, None),
            (b"localhost.:34006", HERE, None),
            (b"dalga.localhost", HERE, None),
            (b"[::1]:34006", "::1", None),
            (b"[0:0:0:0:0:0:0:1]", "::1", None),
            (b"[::ffff:127.0.0.1]", HERE, None),
            (b"dalga.example.org", HERE, None),
            (b"Dalga.Example.ORG.:80", HERE, None),
            (b"10.0.0.5:34006", HERE, None),
            (b"[fd00::5]", HERE, None),
            (b"[FD00:0::5]:1", HERE, None),
            (b"192.0.2.7:34006", "192.0.2.7", None),  # the address of this machine itself
            (b"192.0.2.7", "::ffff:192.0.2.7", None),
            (b"[fe80::1]", "fe80::1%eth0", None),
            (b"evil.example", "", None),  # a local socket, which no browser reaches
            (b"evil.example:34006", HERE, refused),
            (b"evil.example", "192.0.2.7", refused),
            (b"192.0.2.8", "192.0.2.7", refused),
            (b"localhost.evil.example", HERE, refused),
            (b"notlocalhost", HERE, refused),
            (b"127.0.0.1.evil.example", HERE, refused),
            (b"127.1", HERE, refused),
            (b"2130706433", HERE, refused),
            (b"0.0.0.0", HERE, refused),
            (b"dalga", HERE, refused),
            (b"dalga.example.org.evil.example", HERE, refused),
            (b"dalga.example.org@evil.example", HERE, refused),
            (b"localhost:1:2", HERE, refused),
            (b"[::1", HERE, refused),
            (b"::1", HERE, refused),
            (b":34006", HERE, refused),
            (b"..", HERE, refused),
            (b"%00", HERE, refused),
        ]
        self.hold(
            check_open,
            [(asked(host=host, own=own), expected) for host, own, expected in table],
            DOORS,
        )

    def test_none_given(self) -> None:
        """Only loopback's, where nothing is configured. The sentence repeats the name in short."""
        self.hold(
            check_open,
            [
                (asked(), None),
                (asked(host=b"dalga.example.org"), "'dalga.example.org'"),
                (asked(host=b"a" * 300), "'" + "a" * 39 + "…'"),
            ],
            LOOPBACK,
        )


class OpenTests(TableTestCase):
    """P12: without tokens, pages elsewhere change nothing and read nothing."""

    def test_pages(self) -> None:
        posted = {"method": b"POST", "path": b"/jobs/a/b"}
        table: list[tuple[Asked, str | None]] = [
            # programs
            (asked(), None),
            (asked(**posted), None),
            # pages of this daemon
            (asked(origins=[OWN]), None),
            (asked(origins=[OWN], site=b"same-origin", **posted), None),
            (asked(origins=[b"http://LOCALHOST:34006"], host=b"localhost:34006"), None),
            (asked(origins=[b"http://localhost"], host=b"localhost"), None),
            (asked(origins=[b"http://localhost"], host=b"localhost:80"), None),
            (asked(origins=[b"https://dalga.example.org"], host=b"dalga.example.org"), None),
            (asked(origins=[b"https://dalga.example.org"], host=b"dalga.example.org:443"), None),
            (asked(origins=[b"http://[::1]:34006"], host=b"[::1]:34006"), None),
            (asked(site=b"none"), None),
            (asked(site=b"same-origin"), None),
            # pages of an origin that is let in
            (asked(origins=[OPS], site=b"cross-site", **posted), None),
            (asked(b"OPTIONS", origins=[OPS], site=b"cross-site"), None),
            (asked(site=b"cross-site"), ORIGINS),  # it may be any page's
            (asked(origins=[OPS], host=b"evil.example"), "hosts of [listen]"),
            # others
            (asked(origins=[EVIL]), "Origin is 'https://evil.example'"),
            (asked(origins=[EVIL], **posted), ORIGINS),
            (asked(origins=[EVIL], site=b"same-origin"), ORIGINS),
            (asked(b"OPTIONS", origins=[EVIL]), ORIGINS),
            (asked(origins=[b"http://127.0.0.1:8080"], **posted), ORIGINS),
            (asked(origins=[b"http://127.0.0.1"], **posted), ORIGINS),
            (asked(origins=[b"http://localhost:34006"], **posted), ORIGINS),
            (asked(origins=[b"https://ops.example.org:8443"]), ORIGINS),
            (asked(origins=[b"http://ops.example.org"]), ORIGINS),
            (asked(origins=[b"https://ops.example.org.evil.example"]), ORIGINS),
            (asked(origins=[b"null"], **posted), "no key lets such pages in"),
            (asked(origins=[b""]), ORIGINS),
            (asked(origins=[b"*"]), ORIGINS),
            (asked(origins=[OWN + b"/"]), ORIGINS),
            (asked(origins=[OWN + b" " + EVIL]), ORIGINS),
            (asked(origins=[OWN, EVIL]), ORIGINS),
            (asked(origins=[OWN, OWN]), ORIGINS),
            (asked(origins=[OPS, EVIL]), ORIGINS),
            (asked(origins=[b"http://u@127.0.0.1:34006"]), ORIGINS),
            (asked(origins=[b"file://"]), ORIGINS),
            (asked(origins=[b"chrome-extension://abc"]), ORIGINS),
            (asked(site=b"cross-site"), "Sec-Fetch-Site is 'cross-site'"),
            (asked(site=b"same-site"), ORIGINS),  # another port of this host
            (asked(site=b"cross-site", **posted), ORIGINS),
            (asked(site=b"Same-Origin"), ORIGINS),
            (asked(site=b"same-origin,cross-site"), ORIGINS),
            # without a Host there is nothing that an Origin could be the same as
            (asked(host=b"", origins=[OWN]), ORIGINS),
            # TLS, where it is known
            (asked(origins=[OWN], is_encrypted=False), None),
            (asked(origins=[OWN], is_encrypted=True), ORIGINS),
            (asked(origins=[b"https://127.0.0.1:34006"], is_encrypted=True), None),
            # a local socket: the Host is not looked at, the Origin is
            (asked(own="", host=b"a", origins=[EVIL]), ORIGINS),
            (asked(own="", host=b"a", origins=[b"http://a"]), None),
            (asked(own="", host=b"a", site=b"cross-site"), ORIGINS),
        ]
        self.hold(check_open, table, DOORS)

    def test_links(self) -> None:
        """Anybody may have a link to the page, and to nothing else."""
        table: list[tuple[Asked, str | None]] = [
            (link(), None),
            (link(site=b"same-site"), None),
            (link(b"/status"), ORIGINS),
            (link(b"/jobs/a/b"), ORIGINS),
            (link(b"/login"), ORIGINS),
            (link(b"//"), ORIGINS),
            (link(dest=b"iframe"), ORIGINS),
            (link(dest=b"object"), ORIGINS),
            (link(mode=b"no-cors"), ORIGINS),
            (link(mode=b"cors"), ORIGINS),
            (link(mode=b"websocket"), ORIGINS),
            (link(origins=[EVIL]), ORIGINS),
            (link()._replace(method=b"POST"), ORIGINS),
            (link()._replace(method=b"HEAD"), ORIGINS),
            (link(host=b"evil.example"), "hosts of [listen]"),
        ]
        self.hold(check_open, table, DOORS)


class CookieTests(TableTestCase):
    """P12: a cookie, which a browser sends by itself, is of use to this daemon's page alone."""

    def test_reads(self) -> None:
        table: list[tuple[Asked, str | None]] = [
            (asked(), None),
            (asked(site=b"same-origin"), None),
            (asked(site=b"none"), None),
            (asked(origins=[OWN]), None),
            (link(), None),
            (asked(site=b"cross-site"), "Bearer"),
            (asked(site=b"same-site"), "Bearer"),
            (asked(origins=[EVIL]), "Bearer"),
            (asked(origins=[OPS]), "Bearer"),
            (asked(origins=[b"http://127.0.0.1:8080"]), "Bearer"),
            (link(b"/status"), "Bearer"),
        ]
        self.hold(check_cookie, table)

    def test_writes(self) -> None:
        table: list[tuple[bytes, list[bytes], str | None]] = [
            # Sec-Fetch-Site, Origin
            (b"same-origin", [], None),
            (b"same-origin", [OWN], None),
            # a proxy has put another name into Host
            (b"same-origin", [b"https://dalga.example.org"], None),
            (b"", [OWN], None),
            (b"", [], "neither Sec-Fetch-Site nor Origin"),
            (b"none", [], "Bearer"),
            (b"none", [OWN], "Bearer"),
            (b"same-site", [OWN], "Bearer"),
            (b"cross-site", [OWN], "Bearer"),
            (b"cross-site", [EVIL], "Bearer"),
            (b"", [EVIL], "Bearer"),
            (b"", [OPS], "Bearer"),
            (b"", [b"null"], "Bearer"),
            (b"", [OWN, OWN], "Bearer"),
        ]
        for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"post", b"get", b"X"):
            self.hold(
                check_cookie,
                [
                    (asked(method, site=site, origins=origins), expected)
                    for site, origins, expected in table
                ],
            )

    def test_logins(self) -> None:
        """Programs may log in, too; pages elsewhere may not log a person in, nor out."""
        table: list[tuple[bytes, list[bytes], str | None]] = [
            (b"", [], None),
            (b"same-origin", [OWN], None),
            (b"", [OWN], None),
            (b"none", [], "Bearer"),
            (b"same-site", [], "Bearer"),
            (b"cross-site", [EVIL], "Bearer"),
            (b"", [EVIL], "Bearer"),
            (b"", [b"null"], "Bearer"),
        ]
        self.hold(
            check_session,
            [
                (asked(b"POST", b"/login", site=site, origins=origins), expected)
                for site, origins, expected in table
            ],
        )


class GrantedTests(SynchronousTestCase):
    def test_origins(self) -> None:
        """Of the configured origins, as browsers write them; never of several at once."""
        for origins, expected in [
            ([OPS], OPS),
            ([EVIL], None),
            ([b"null"], None),
            ([OPS, OPS], None),
            ([OPS + b":443"], None),
            ([], None),
        ]:
            self.assertEqual(granted_origin(asked(origins=origins), DOORS), expected)
        self.assertIsNone(granted_origin(asked(origins=[OPS]), LOOPBACK))


TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "127.0.0.1/32")))


class ForwardedTests(SynchronousTestCase):
    """What a proxy says of the client in front of it."""

    def test_address(self) -> None:
        for peer, lines, expected in [
            ("10.0.0.4", [b"203.0.113.7"], "203.0.113.7"),
            ("10.0.0.4", [b"1.1.1.1, 203.0.113.7, 10.0.0.5"], "203.0.113.7"),
            ("10.0.0.4", [b"1.1.1.1", b"203.0.113.7,10.0.0.5"], "203.0.113.7"),
            ("10.0.0.4", [b"10.0.0.6, 10.0.0.5"], "10.0.0.6"),
            ("10.0.0.4", [], "10.0.0.4"),
            ("10.0.0.4", [b""], "10.0.0.4"),
            ("10.0.0.4", [b"203.0.113.7, "], "10.0.0.4"),
            ("10.0.0.4", [b"203.0.113.7, unknown"], "10.0.0.4"),
            ("10.0.0.4", [b"203.0.113.7, _hidden, 10.0.0.5"], "10.0.0.5"),
            ("10.0.0.4", [b"203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.4", [b"[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.4", [b"[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.4", [b"2001:DB8:0::7"], "2001:db8::7"),
            ("10.0.0.4", [b"::ffff:203.0.113.7"], "203.0.113.7"),
            ("10.0.0.4", [b"999.0.0.1"], "10.0.0.4"),
            ("10.0.0.4", [b"\xff\xfe"], "10.0.0.4"),
            ("::ffff:10.0.0.4", [b"203.0.113.7"], "203.0.113.7"),
            ("fd00::1", [b"203.0.113.7"], "203.0.113.7"),
            ("", [b"203.0.113.7"], "203.0.113.7"),  # a local socket counts as 127.0.0.1
            # clients that are not trusted say nothing about themselves
            ("203.0.113.9", [b"203.0.113.7"], "203.0.113.9"),
            ("fe80::1%eth0", [b"203.0.113.7"], "fe80::1%eth0"),
        ]:
            self.assertEqual(client_address(peer, lines, TRUSTED), expected, (peer, lines))
        for peer in ("10.0.0.4", "127.0.0.1", ""):
            self.assertEqual(client_address(peer, [b"203.0.113.7"], ()), peer)
            self.assertFalse(is_trusted(peer, ()))
        self.assertEqual(client_address("", [b"203.0.113.7"], TRUSTED[:1]), "")

    def test_scheme(self) -> None:
        for lines, expected in [
            ([b"https"], True),
            ([b"HTTPS "], True),
            ([b"http, https"], True),
            ([b"http", b"https"], True),
            ([b"https, http"], False),
            ([b"http"], False),
            ([b""], False),
            ([], False),
        ]:
            self.assertIs(is_forwarded_https(lines), expected, lines)
