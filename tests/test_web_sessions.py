"""Logins in a browser, and the page that they are made at."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga import __version__
from dalga.errors import InvalidRequest
from dalga.model.permit import Grant, Scope, digest_of
from dalga.web import auth
from dalga.web.auth import HOLD, MOST_FAILURES, Tokens
from dalga.web.bodies import FREE_OF_ROOM
from dalga.web.errors import UnsupportedMediaType
from dalga.web.origins import Doors
from dalga.web.page import FILES, FRONT, PAGE_HEADERS
from dalga.web.sessions import (
    LASTS,
    MAX_COOKIES,
    cookie,
    cookie_name,
    cookies,
    new_session,
    read_session,
    token_of_login,
)
from tests.strategies import thorough
from tests.test_web_api import CALLED, APITestCase
from tests.test_web_auth import TEXTS, bearer, token

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TOKEN = TEXTS[0].encode()


class SessionTests(SynchronousTestCase):
    """A token -> a cookie's value, and back."""

    def test_as_it_was_made(self) -> None:
        value = new_session(TOKEN, NOW)
        self.assertEqual(read_session(value, NOW), (TOKEN, NOW + LASTS))
        self.assertEqual(LASTS, timedelta(hours=12))
        self.assertTrue(re.fullmatch(rb"[!#-+\--:<-\[\]-~]+", value))  # RFC 6265 section 4.1.1

    def test_end(self) -> None:
        """It ends after 12 h, whatever the browser does with the cookie."""
        value = new_session(TOKEN, NOW)
        self.assertIsNotNone(read_session(value, NOW + LASTS - SECOND))
        self.assertIsNone(read_session(value, NOW + LASTS))
        self.assertIsNone(read_session(value, NOW + 9 * LASTS))
        self.assertIsNone(read_session(value, NOW - timedelta(minutes=2)))  # it would last longer
        self.assertIsNotNone(read_session(value, NOW - 30 * SECOND))

    def test_made_by_others(self) -> None:
        """P12: not with the token's hash, nor of another session, nor with another end."""
        value = new_session(TOKEN, NOW)
        version, end, text, signature = value.split(b".")
        later = b"%d" % (int(end) + 60)
        other = new_session(TEXTS[1].encode(), NOW).split(b".")[3]
        hashed = sha256(TOKEN).hexdigest().encode()
        for forged in (
            b".".join([version, later, text, signature]),
            b".".join([version, end, text, other]),
            b".".join([version, end, TEXTS[1].encode(), signature]),
            b".".join([b"2", end, text, signature]),
            b".".join([version, end, text, b""]),
            b".".join([version, end, text]),
            b".".join([version, b"0" + end, text, signature]),
            value[:-1],
            value + b"A",
            value + b"=",
            b'"' + value + b'"',
            TOKEN,
            b"",
        ):
            self.assertIsNone(read_session(forged, NOW), forged)
        # Whoever has the hash can sign with it, and then the text is no token's.
        made = read_session(new_session(hashed, NOW), NOW)
        assert made is not None
        self.assertIsNone(Tokens([token("ci", TEXTS[0])]).find(made.token))

    @thorough(300)
    @given(st.binary(max_size=120))
    def test_fuzz(self, value: bytes) -> None:
        self.assertIsNone(read_session(value, NOW))

    def test_cookie(self) -> None:
        for root, is_encrypted, expected in [
            (b"", False, b"dalga=x; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"),
            (b"/in", False, b"dalga=x; Path=/in; Max-Age=43200; HttpOnly; SameSite=Strict"),
            (
                b"",
                True,
                b"__Host-dalga=x; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure",
            ),
            (
                b"/in",
                True,
                b"__Secure-dalga=x; Path=/in; Max-Age=43200; HttpOnly; SameSite=Strict; Secure",
            ),
        ]:
            self.assertEqual(cookie(b"x", root, is_encrypted), expected)
        self.assertIn(b"dalga=; Path=/; Max-Age=0; ", cookie(b"", b"", False))

    def test_cookies(self) -> None:
        for lines, expected in [
            ([], []),
            ([b"dalga=a"], [b"a"]),
            ([b"x=1; dalga=a=b ;y=2"], [b"a=b"]),
            ([b"dalga=a; dalga=b", b"dalga=c"], [b"a", b"b", b"c"]),
            ([b"Dalga=a; xdalga=b; dalga2=c; dalga"], [b""]),
            ([b"__Host-dalga=a"], []),
            ([b"; ; =;"], []),
            ([b"dalga=a;" * 99], [b"a"] * MAX_COOKIES),
        ]:
            self.assertEqual(list(cookies(lines, cookie_name(b"", False))), expected, lines)

    def test_bodies(self) -> None:
        """A login's body, and sentences on others that repeat nothing of it."""
        form, as_json = "application/x-www-form-urlencoded", "application/json"
        for kind, body in [
            (form, b"token=" + TOKEN),
            (form, b"token=+" + TOKEN + b"+%0A"),
            (as_json, json.dumps({"token": TEXTS[0]}).encode()),
            (f"{as_json}; charset=utf-8", b' { "token" : "' + TOKEN + b'" } '),
        ]:
            self.assertEqual(token_of_login(kind, body), TOKEN)
        for kind, body in [
            (form, b""),
            (form, b"token="),
            (form, b"Token=" + TOKEN),
            (form, b"token=" + TOKEN + b"&token=" + TOKEN),
            (form, b"token=" + TOKEN + b"&x=1"),
            (form, b"token=" + TOKEN + b"%"),
            (form, b"token=a+b"),
            (form, b"token=" + b"a" * 600),
            (as_json, TOKEN),
            (as_json, b'"' + TOKEN + b'"'),
            (as_json, b'{"token":["' + TOKEN + b'"]}'),
            (as_json, b'{"token":1}'),
            (as_json, b'{"token":null}'),
            (as_json, b'{"token":"' + TOKEN + b"\xc3\xa9" + b'"}'),
        ]:
            with self.assertRaises(InvalidRequest) as caught:
                token_of_login(kind, body)
            self.assertNotIn(TEXTS[0][:9], str(caught.exception).replace("dalga token", ""))
        self.assertRaises(UnsupportedMediaType, token_of_login, "text/plain", TOKEN)


def headers_of(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def members_of(answer: bytes) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return members


LOOPBACK = ip_network("127.0.0.0/8")
JSON = b"Content-Type: application/json\r\n"
OWN = b"Sec-Fetch-Site: same-origin\r\n"


class LoginTests(APITestCase):
    """A site with tokens, as browsers see it."""

    def setUp(self) -> None:
        super().setUp()
        self.store.time = NOW
        self.site.tokens = Tokens(
            [
                token("reader", TEXTS[0], Grant(Scope.READ)),
                token("writer", TEXTS[1], Grant(Scope.WRITE)),
            ]
        )

    async def log_in(self, text: str = TEXTS[1], headers: bytes = OWN) -> bytes:
        """Log in; gives the header Cookie of the requests that follow."""
        body = json.dumps({"token": text}).encode()
        answer = await self.ask(b"POST /login", JSON + headers, body)
        self.assertIn(b" 200 ", answer[:14], answer)
        set_cookie = headers_of(answer)["set-cookie"]
        return b"Cookie: %b\r\n" % set_cookie.partition(";")[0].encode()

    async def test_login(self) -> None:
        answer = await self.ask(b"POST /login", JSON + OWN, b'{"token":"%b"}' % TOKEN)
        headers = headers_of(answer)
        self.assertTrue(
            re.fullmatch(
                r"dalga=1\.[0-9]+\.[^;]+; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict",
                headers["set-cookie"],
            )
        )
        self.assertEqual(headers["cache-control"], "no-store")
        expected = {
            "tokens": True,
            "token": "reader",
            "version": __version__,
            "grants": "read",
            "ends": "2026-12-01T21:00:00Z",
        }
        self.assertEqual(members_of(answer), expected)
        self.assertNotIn(TOKEN, answer.partition(b"\r\n\r\n")[2])
        cookie = await self.log_in(TEXTS[0])
        self.assertEqual(members_of(await self.ask(b"GET /login", cookie + OWN)), expected)
        nobody = {"tokens": True, "token": None}
        for others in (b"", b"Cookie: dalga=x\r\n", bearer(TEXTS[2])):
            self.assertEqual(members_of(await self.ask(b"GET /login", others)), nobody)
        shown = members_of(await self.ask(b"GET /login", bearer(TEXTS[1])))
        self.assertEqual((shown["token"], shown["grants"]), ("writer", "write"))

    async def test_by_cookie(self) -> None:
        """It may what its token may. Answers are not kept, and are of use to this page alone."""
        writer, reader = await self.log_in(), await self.log_in(TEXTS[0])
        put = b"PUT /jobs/a/b?interval=60"
        self.assertIn(b" 201 ", (await self.ask(put, writer + OWN))[:14])
        answer = await self.ask(put, reader + OWN)
        self.assertIn(b" 403 ", answer[:14])
        self.assertIn(b"the scope write, and the token reader has read", answer)
        answer = await self.ask(b"GET /jobs/a/b", reader)
        headers = headers_of(answer)
        self.assertIn(b" 200 ", answer[:14])
        self.assertEqual(headers["cache-control"], "no-store")
        self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertEqual(headers["cross-origin-resource-policy"], "same-origin")
        # Another name's cookie is none: over TLS the name is another one.
        renamed = writer.replace(b"dalga=", b"__Host-dalga=")
        self.assertIn(b" 401 ", (await self.ask(b"GET /jobs", renamed))[:14])
        # A token that is sent by the page itself goes before a cookie.
        self.assertIn(b" 403 ", (await self.ask(put, writer + OWN + bearer(TEXTS[0])))[:14])
        self.assertIn(b" 401 ", (await self.ask(put, writer + OWN + bearer(TEXTS[2])))[:14])
        # Of several cookies, that of another path, say, one will do.
        several = b"Cookie: dalga=old; %b" % writer.removeprefix(b"Cookie: ")
        self.assertIn(b" 200 ", (await self.ask(b"GET /jobs", several))[:14])

    async def test_pages_elsewhere(self) -> None:
        """P12: a cookie of a request that a page elsewhere has a browser send is of no use."""
        cookie = await self.log_in()
        for headers in (
            b"Sec-Fetch-Site: cross-site\r\n",
            b"Sec-Fetch-Site: same-site\r\n",
            b"Origin: https://evil.example\r\n",
            b"Origin: null\r\n",
            b"Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n",
        ):
            for line in (b"PUT /jobs/a/b?interval=60", b"GET /jobs", b"GET /login", b"GET /nope"):
                answer = await self.ask(line, cookie + headers)
                self.assertIn(b" 403 ", answer[:14], (line, headers))
                self.assertIn(b"the login of this daemon's page is for requests of that", answer)
            for line in (b"POST /login", b"POST /logout"):
                answer = await self.ask(line, headers + JSON, b'{"token":"%b"}' % TOKEN)
                self.assertIn(b" 403 ", answer[:14], (line, headers))
                self.assertNotIn(b"Set-Cookie", answer)
        for line in (b"PUT /jobs/a/b?interval=60", b"DELETE /jobs/a/b", b"POST /actions"):
            self.assertIn(b"neither Sec-Fetch-Site nor", await self.ask(line, cookie))
        self.assertEqual(self.store.rows, {})
        answer = await self.ask(b"PUT /jobs/a/b?interval=60", cookie + b"Origin: http://dalga\r\n")
        self.assertIn(b" 201 ", answer[:14])
        # An origin that may call sends a token by itself, and no cookie.
        self.site.doors = Doors(CALLED.hosts, frozenset({"https://ops.example"}))
        for line in (b"PUT /jobs/a/c?interval=60", b"GET /jobs"):
            answer = await self.ask(line, cookie + b"Origin: https://ops.example\r\n")
            self.assertIn(b" 403 ", answer[:14])
            self.assertNotIn(b"Access-Control-Allow-Credentials", answer)

    async def test_links(self) -> None:
        """The page may be linked to from anywhere, and says nothing by itself."""
        link = b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"
        link += b"Sec-Fetch-Dest: document\r\n"
        for tokens in (self.site.tokens, Tokens()):
            self.site.tokens = tokens
            self.assertIn(b"<title>", await self.ask(b"GET /", link))

    async def test_end(self) -> None:
        """P12: after 12 h, or once the token is none of the configuration, a login has ended."""
        cookie = await self.log_in()
        self.store.time = NOW + LASTS - SECOND
        self.assertIn(b" 200 ", (await self.ask(b"GET /jobs", cookie))[:14])
        self.store.time = NOW + LASTS
        answer = await self.ask(b"GET /jobs", cookie)
        self.assertIn(b" 401 ", answer[:14])
        self.assertIn(b"the login has ended, or its token was removed: log in again", answer)
        self.assertIn(b'error="invalid_token"', answer)
        self.store.time = NOW
        self.assertIn(b" 200 ", (await self.ask(b"GET /jobs", cookie))[:14])
        self.site.tokens = Tokens([token("writer", TEXTS[2], Grant(Scope.WRITE))])
        self.assertIn(b" 401 ", (await self.ask(b"GET /jobs", cookie))[:14])

    async def test_hash_is_no_token(self) -> None:
        """P12: whoever has read the configuration can neither log in nor make a cookie."""
        digest = digest_of(TOKEN).hex().encode()
        for known in (digest, b"sha256:" + digest):
            answer = await self.ask(b"POST /login", JSON, b'{"token":"%b"}' % known)
            self.assertIn(answer[9:12], (b"400", b"401"))
            cookie = b"Cookie: dalga=%b\r\n" % new_session(known, NOW)
            self.assertIn(b" 401 ", (await self.ask(b"GET /jobs", cookie))[:14])

    async def test_wrong_tokens(self) -> None:
        """They are slowed down as all requests without a valid token are."""
        body = b'{"token":"%b"}' % TEXTS[2].encode()
        for _ in range(MOST_FAILURES):
            answer = await self.ask(b"POST /login", JSON + OWN, body)
            self.assertIn(b" 401 ", answer[:14])
            self.assertNotIn(b"Set-Cookie", answer)
            # The same words as for a token in Authorization.
            self.assertIn(b"it was mistyped, or it was removed there", answer)
        client, gone = await self.connect(), await self.connect()
        request = b"POST /login HTTP/1.1\r\nHost: dalga\r\n%bContent-Length: %d\r\n\r\n%b" % (
            JSON,
            len(body),
            body,
        )
        client.send(request)
        gone.send(request)
        waiting = client.answer()
        while not all(channel.answering for channel in self.channels[-2:]):
            await self.turn()
        gone.transport.abortConnection()  # type: ignore[union-attr]
        await gone.lost
        await self.server_lost[-1]
        self.assertNoResult(waiting)
        self.clock.advance(HOLD)
        self.assertIn(b" 401 ", (await waiting)[:14])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.patch(auth, "MOST_HELD", 0)
        self.clock.advance(HOLD)
        for _ in range(MOST_FAILURES):
            await self.ask(b"POST /login", JSON + OWN, body)
        answer = await self.ask(b"POST /login", JSON + OWN, body)
        self.assertIn(b" 429 ", answer[:14])
        self.site.failures.close()

    async def test_long_bodies(self) -> None:
        """P10: nobody's body takes memory that others need."""
        for line in (b"POST /login", b"GET /health"):
            answer = await self.ask(line, JSON + OWN, b" " * (FREE_OF_ROOM + 1))
            self.assertIn(b" 413 ", answer[:14])
            self.assertIn(b"it takes 4096 bytes at most", answer)
        answer = await self.ask(
            b"POST /login", JSON + OWN, b'{"token":"%b"} ' % TOKEN + b" " * 3000
        )
        self.assertIn(b" 200 ", answer[:14])

    async def test_logout(self) -> None:
        answer = await self.ask(b"POST /logout", OWN + await self.log_in())
        self.assertIn(b" 200 ", answer[:14])
        expected = "dalga=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
        self.assertEqual(headers_of(answer)["set-cookie"], expected)
        self.assertEqual(members_of(answer), {"tokens": True, "token": None})

    async def test_forms(self) -> None:
        """Without JavaScript: a form is led back to the page."""
        self.site.doors = Doors(CALLED.hosts, root_path="/in")
        form = b"Content-Type: application/x-www-form-urlencoded\r\n"
        for line, body in ((b"POST /in/login", b"token=" + TOKEN), (b"POST /in/logout", b"x=")):
            answer = await self.ask(line, form + OWN, body)
            headers = headers_of(answer)
            self.assertIn(b" 303 ", answer[:14])
            self.assertEqual(headers["location"], "/in/")
            self.assertIn("; Path=/in; ", headers["set-cookie"])

    async def test_outside_the_root_path(self) -> None:
        """There is nothing there, which a request without a token is not told."""
        self.site.doors = Doors(CALLED.hosts, root_path="/in")
        self.assertIn(b" 404 ", (await self.ask(b"GET /health", bearer(TEXTS[0])))[:14])
        self.assertIn(b" 401 ", (await self.ask(b"GET /health"))[:14])

    async def test_tls_at_a_proxy(self) -> None:
        """X-Forwarded-Proto makes the cookie one of TLS, if the proxy is trusted."""
        told = OWN + b"X-Forwarded-Proto: https\r\n"
        self.assertTrue((await self.log_in(headers=told)).startswith(b"Cookie: dalga="))
        self.site.doors = Doors(CALLED.hosts, trusted_proxies=(LOOPBACK,))
        cookie = await self.log_in(headers=told)
        self.assertTrue(cookie.startswith(b"Cookie: __Host-dalga="))
        put = b"PUT /jobs/a/b?interval=60"
        for headers, status in [
            (b"Origin: https://dalga\r\nX-Forwarded-Proto: https\r\n", b" 201 "),
            (b"Origin: http://dalga\r\nX-Forwarded-Proto: https\r\n", b" 403 "),
            (b"Origin: https://dalga\r\n", b" 401 "),  # without TLS that is no cookie
        ]:
            self.assertIn(status, (await self.ask(put, cookie + headers))[:14], headers)

    async def test_without_tokens(self) -> None:
        self.site.tokens = Tokens()
        shown = members_of(await self.ask(b"GET /login"))
        self.assertEqual(shown, {"tokens": False, "token": None, "version": __version__})
        status, detail = await self.refusal(b"POST /login", JSON, b'{"token":"%b"}' % TOKEN)
        self.assertEqual(status, 400)
        self.assertIn("nothing to log in to", detail)


class PageTests(APITestCase):
    """The page and its files."""

    async def test_files(self) -> None:
        """All that it loads is there, with headers that keep it to itself."""
        front = FILES[FRONT].content.decode()
        loaded = re.findall(r'(?:src|href)="([^"]*)"', front)
        self.assertEqual({f"static/{name}" for name in FILES if name != FRONT}, set(loaded))
        for path, file in [("/", FILES[FRONT])] + [
            (f"/static/{name}", file) for name, file in FILES.items()
        ]:
            answer = await self.ask(b"GET " + path.encode())
            headers = headers_of(answer)
            self.assertEqual(answer.partition(b"\r\n\r\n")[2], file.content)
            self.assertEqual(headers["content-type"], file.content_type)
            for name, value in PAGE_HEADERS:
                self.assertEqual(headers[name.decode().lower()], value.decode(), path)
            self.assertNotIn("set-cookie", headers)
        policy = dict(PAGE_HEADERS)[b"Content-Security-Policy"].decode()
        self.assertNotIn("unsafe", policy)
        self.assertTrue(policy.startswith("default-src 'none'; "))
        self.assertIn("frame-ancestors 'none'", policy)

    def test_nothing_inline(self) -> None:
        """The policy lets no script, style or handler stand in the page itself."""
        front = FILES[FRONT].content.decode()
        self.assertNotRegex(front, r"<style|style=|\son\w+=|<script(?! src=)|javascript:|//")

    async def test_root_path(self) -> None:
        self.site.doors = Doors(CALLED.hosts, root_path="/in")
        answer = await self.ask(b"GET /in")
        self.assertIn(b" 308 ", answer[:14])
        self.assertEqual(headers_of(answer)["location"], "/in/")
        for path in (b"/in/", b"/in/static/page.js", b"/in/login"):
            self.assertIn(b" 200 ", (await self.ask(b"GET " + path))[:14])
