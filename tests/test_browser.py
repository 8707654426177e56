"""Pages elsewhere, and the page of a daemon, in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from tests.browsers import BrowserTestCase, Tab
from tests.certificates import Authority, dns, write
from tests.daemons import Daemon
from tests.stores import each_engine
from tests.test_daemon_tokens import TEXTS, line

#: What a page can have a browser send, each with what the page gets to see of the answer.
ATTACK = Path(__file__).with_name("elsewhere.js").read_text(encoding="utf-8")

#: The hosts of pages elsewhere, and the names by which these call the daemon.
PAGES, HOSTS = ("127.0.0.1", "localhost", "evil.test"), ("127.0.0.1", "localhost")

#: What the daemon's page says of who looks at it.
KNOWS = "document.getElementById('who').textContent.trim()"


class PageTestCase(BrowserTestCase):
    async def with_job(self, **sections: Any) -> tuple[Daemon, str]:
        """A daemon with a job that is far from due, and that nobody has seen."""
        daemon, url = await self.start(**sections)
        status, _ = await self.call(
            "PUT", f"{url}/jobs/a/b?interval=90000", headers=self.bearer() if sections else {}
        )
        self.assertEqual(status, 201)
        self.port = url.rpartition(":")[2]
        return daemon, url

    def bearer(self, token: str = "writer") -> dict[str, str]:
        return {"Authorization": f"Bearer {TEXTS[token]}"}

    async def log_in(self, tab: Tab, url: str, token: str = "writer") -> None:
        """Log in by the keyboard."""
        await tab.open(f"{url}/")
        await tab.until("!document.getElementById('login').hidden")
        await tab.press("Tab", 9)
        await tab.type(TEXTS[token])
        await tab.press("Enter", 13)
        await tab.until(f"{KNOWS}.startsWith('You are logged in as {token} (')")

    async def refused(self, url: str) -> int:
        """How many requests the daemon has refused, or had without a token."""
        _, shown = await self.call("GET", f"{url}/metrics", headers=self.bearer())
        counts = re.findall(r'^dalga_http_requests_total\{.*code="40[13]".*\} (.*)$', shown, re.M)
        return int(sum(map(float, counts)))

    async def attack(self, tab: Tab, url: str, pages: Iterable[tuple[str, str]]) -> None:
        """
        Have pages elsewhere try all that pages can. P12: nothing is changed, nothing is read.

        :param pages: their hosts, and the names by which they call the daemon.
        """
        headers = self.bearer()
        before = await self.call("GET", f"{url}/jobs", headers=headers)
        for page, host in pages:
            base = f"http://{host}:{self.port}"
            await tab.open(f"http://{page}:{self.elsewhere}/")
            refused = await self.refused(url)
            seen = await tab.run(f"({ATTACK.strip()})({json.dumps(base)})")
            self.assertGreaterEqual(await self.refused(url) - refused, 12, (page, host))
            self.assertEqual(len(seen), 23)
            for what in seen:
                self.assertNotIn("next_run", json.dumps(what))
                self.assertNotIn("dalga", json.dumps(what), what)
                self.assertNotIn(["socket", "open"], [what])
            # The answer to a link is shown to the person, and not to the page.
            await tab.lead(f"location.href = {json.dumps(base + '/jobs/a/b')}")
            self.assertNotIn("next_run", await tab.text())
            await tab.open(f"http://{page}:{self.elsewhere}/")
            await tab.lead(
                "const form = document.createElement('form'); form.method = 'post';"
                f"form.action = {json.dumps(base + '/jobs/a/b')};"
                "document.body.append(form); form.submit()"
            )
            self.assertRegex(await tab.text(), '"status":40[13]')
        self.assertEqual(await self.call("GET", f"{url}/jobs", headers=headers), before)
        self.assertEqual(self.endpoint.hits, [])


# Which engine has the jobs makes no difference to what is refused.
@each_engine(globals(), only=("sqlite",))
class ElsewhereTests(PageTestCase):
    async def test_without_tokens(self) -> None:
        """P12: pages elsewhere, and at a name that was given to this machine."""
        _, url = await self.with_job()
        tab = await self.browser.tab()
        await self.attack(tab, url, product(PAGES, HOSTS))
        # The page of the daemon itself may do all that.
        await tab.open(f"{url}/")
        self.assertIn("next_run", await tab.run("fetch('jobs/a/b').then((got) => got.text())"))
        # A page whose name was given to this machine meanwhile has the daemon at its own origin.
        rebound = f"http://evil.test:{self.port}"
        await tab.open(rebound)
        self.assertIn("put it into hosts of [listen]", await tab.text())
        for method in ("GET", "POST", "PUT", "DELETE"):
            script = f"fetch('/jobs/a/b', {{method: '{method}'}}).then((got) => got.text())"
            self.assertIn("put it into hosts of [listen]", await tab.run(script))
        # A link leads to the page, from anywhere.
        await tab.open(f"http://evil.test:{self.elsewhere}/")
        await tab.lead(f"location.href = '{url}/'")
        await tab.until(f"{KNOWS}.startsWith('There are no tokens')")
        self.assertEqual(self.endpoint.hits, [])

    async def test_with_tokens(self) -> None:
        """P12: the same for who has not logged in, and for who has."""
        daemon, url = await self.with_job(tokens={"writer": line("writer")})
        tab = await self.browser.tab()
        await self.attack(tab, url, [("evil.test", "127.0.0.1")])
        for host in ("127.0.0.1", "localhost"):
            await self.log_in(tab, f"http://{host}:{self.port}")
        self.assertEqual(len(await tab.cookies()), 2)
        # Cookies come along to another port of the same host. To other sites they don't, and the
        # answers are slow there.
        of_one_site = [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")]
        await self.attack(tab, url, [*of_one_site, ("localhost", "127.0.0.1")])
        self.assertEqual(len(await tab.cookies()), 2)  # nobody was logged out
        await tab.open(f"{url}/")
        self.assertIn("next_run", await tab.run("fetch('jobs/a/b').then((got) => got.text())"))
        # Another page that links there: the cookie comes with what the page asks for itself.
        await tab.open(f"http://evil.test:{self.elsewhere}/")
        await tab.lead(f"location.href = '{url}/'")
        await tab.until(f"{KNOWS}.startsWith('You are logged in as writer')")
        self.assertNotIn(TEXTS["writer"], daemon.output)

    async def test_pages_that_may(self) -> None:
        """CORS: a page of an origin that may call sends its token, and reads what it asks for."""
        origin = f"http://ops.test:{self.elsewhere}"
        listen = {"port": 0, "origins": origin}
        await self.with_job(tokens={"writer": line("writer")}, listen=listen)
        tab = await self.browser.tab()
        put = f"'http://127.0.0.1:{self.port}/jobs/a/c?interval=60', {{method: 'PUT', headers}}"
        script = f"""(async () => {{
            const headers = {json.dumps(self.bearer())}, put = await fetch({put});
            return [put.status, put.headers.get("ETag") !== null, await put.json()];
        }})().catch(() => "refused")"""
        await tab.open(origin)
        status, has_etag, job = await tab.run(script)
        self.assertEqual((status, has_etag, job["body"]), (201, True, "c"))
        await tab.open(f"http://evil.test:{self.elsewhere}/")
        self.assertEqual(await tab.run(script), "refused")


@each_engine(globals(), only=("sqlite",))
class LoginTests(PageTestCase):
    async def test_login(self) -> None:
        """By the keyboard: log in, use it, log out; and a token that is removed."""
        tokens = {"writer": line("writer"), "reader": line("reader")}
        daemon, url = await self.with_job(tokens=tokens)
        tab = await self.browser.tab()
        await self.log_in(tab, url)
        [cookie] = await tab.cookies()
        self.assertEqual(
            {name: cookie.get(name) for name in ("name", "domain", "path", "httpOnly", "sameSite")},
            {
                "name": "dalga",
                "domain": "127.0.0.1",
                "path": "/",
                "httpOnly": True,
                "sameSite": "Strict",
            },
        )
        lasts = cookie["expires"] - await tab.run("Date.now() / 1000")
        self.assertTrue(11.9 * 3600 < lasts <= 12 * 3600 + 60, lasts)
        self.assertEqual(await tab.run("document.cookie"), "")
        self.assertEqual(await tab.run("document.getElementById('token').value"), "")
        put = "fetch('jobs/a/d?interval=90000', {method: 'PUT'}).then((got) => got.status)"
        self.assertEqual(await tab.run(put), 201)
        await tab.open(f"{url}/")  # it is still known
        await tab.until(f"{KNOWS}.startsWith('You are logged in as writer (write), until')")
        self.assertEqual(tab.console, [])

        await tab.press("Tab", 9)
        await tab.press("Enter", 13)
        await tab.until(f"{KNOWS} === 'You are not logged in.'")
        self.assertEqual((await tab.cookies(), tab.console), ([], []))
        self.assertEqual(await tab.run(put), 401)

        await self.log_in(tab, url, "reader")
        self.assertEqual(await tab.run(put), 403)
        self.ini(tokens={"writer": line("writer")})
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: \[tokens\] reader")
        self.assertEqual(await tab.run("fetch('jobs').then((got) => got.status)"), 401)
        await tab.open(f"{url}/")
        await tab.until("!document.getElementById('login').hidden")
        await tab.press("Tab", 9)
        await tab.type(TEXTS["reader"])
        await tab.press("Enter", 13)
        mistake = "document.getElementById('mistake').textContent"
        await tab.until(f"{mistake}.startsWith('the token is not one of the configuration')")
        self.assertIn("writer has logged in from 127.0.0.1", daemon.output)
        for text in TEXTS.values():
            self.assertNotIn(text, daemon.output)

    async def test_root_path(self) -> None:
        """Below a path, and in the light and in the dark."""
        listen = {"port": 0, "rootPath": "/in/here"}
        _, url = await self.start(listen=listen, tokens={"writer": line("writer")})
        tab = await self.browser.tab()
        await self.log_in(tab, f"{url}/in/here")
        self.assertEqual(await tab.run("location.pathname"), "/in/here/")
        [cookie] = await tab.cookies()
        self.assertEqual(cookie["path"], "/in/here")
        self.assertEqual(await tab.run("fetch('jobs').then((got) => got.status)"), 200)
        await tab.open(f"{url}/in/here")
        await tab.until(f"{KNOWS}.startsWith('You are logged in as writer')")
        colours = set()
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            await tab.ask("Emulation.setEmulatedMedia", features=features)
            of = "getComputedStyle(document.body)"
            colours.add(tuple(await tab.run(f"[{of}.backgroundColor, {of}.color]")))
        self.assertEqual(len(colours), 2)
        self.assertEqual(tab.console, [])

    async def test_tls(self) -> None:
        """Over TLS the cookie is of this very host, and of TLS alone."""
        certificate, key = (
            os.path.abspath(os.path.join(self.folder, name)) for name in ("cert.pem", "key.pem")
        )
        write(Authority().issue(dns("localhost")), certificate, key)
        endpoint = f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
        ini = self.ini(listen={"endpoint": endpoint}, tokens={"writer": line("writer")})
        daemon = self.spawn("--config", ini)
        port = (await daemon.says(r"listens on .*https://127\.0\.0\.1:(\d+)/"))[1]
        tab = await self.browser.tab()
        await self.log_in(tab, f"https://localhost:{port}")
        [cookie] = await tab.cookies()
        self.assertEqual((cookie["name"], cookie["secure"]), ("__Host-dalga", True))
        self.assertEqual(await tab.run("fetch('jobs').then((got) => got.status)"), 200)
