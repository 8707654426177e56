"""
A real browser, Chromium without a screen, and pages elsewhere for it to open.

The browser is driven by the DevTools protocol over a pipe: commands and answers are JSON, each with
an octet 0 behind it. If the pipe is closed, as it is when this process ends, the browser ends, too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.daemons import DaemonTestCase
from tests.servers.server import engine_folder

#: Names that are for this machine, in the browser alone: those of pages that are not Dalga's.
ELSEWHERE = "MAP *.test 127.0.0.1"

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--ignore-certificate-errors", "--remote-debugging-pipe"),
    f"--host-resolver-rules={ELSEWHERE}",
)


class Browser(ProcessProtocol):
    """
    The browser's process.

    :param folder: the path of a folder for its data, which is removed at the end.
    """

    def __init__(self, reactor: Any, folder: str) -> None:
        self.ended: Deferred[None] = Deferred()
        self._folder = folder
        self._last = 0
        self._asked: dict[int, Deferred[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._rest = b""
        self._said = b""
        program = str(engine_folder("chromium") / "server")
        reactor.spawnProcess(
            self,
            program,
            [program, *OPTIONS, f"--user-data-dir={self._folder}/data"],
            {"HOME": self._folder, "PATH": "/usr/bin:/bin"},
            childFDs={0: "w", 1: "r", 2: "r", 3: "w", 4: "r"},
        )

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Called with what it says."""
        if childFD != 4:
            self._said += data
            return
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in messages:
            self._heard(json.loads(message))

    def _heard(self, message: dict[str, Any]) -> None:
        if "id" in message:
            asked = self._asked.pop(message["id"])
            if "error" in message:
                asked.errback(AssertionError(message["error"]["message"]))
            else:
                asked.callback(message["result"])
        elif message.get("sessionId") in self._tabs:
            self._tabs[message["sessionId"]].heard(message["method"], message["params"])

    def processEnded(self, reason: Failure) -> None:
        """Called when it has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.errback(AssertionError(f"the browser has ended: {self._said.decode()[-3000:]}"))
        self.ended.callback(None)

    def ask(self, method: str, session: str = "", **parameters: Any) -> Deferred[dict[str, Any]]:
        """Send a command; gives its result."""
        self._last += 1
        command: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        asked = self._asked[self._last] = Deferred()
        assert self.transport is not None
        self.transport.writeToChild(3, json.dumps(command).encode() + b"\0")
        return asked

    async def tab(self) -> Tab:
        """A tab with cookies of its own."""
        context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        target = await self.ask("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.ask(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"], context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.ask(f"{domain}.enable")
        return tab

    async def end(self) -> None:
        """End it with all of its processes, and remove its data."""
        if not self.ended.called:
            self.ask("Browser.close").addErrback(lambda _: None)
            await self.ended


class Tab:
    """A tab of the browser, and the page in it."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self._waiting: defaultdict[str, list[Deferred[None]]] = defaultdict(list)
        #: What stands in the console: errors, warnings, reports of the page's policy.
        self.console: list[str] = []

    def ask(self, method: str, **parameters: Any) -> Deferred[dict[str, Any]]:
        """Send a command for this tab; gives its result."""
        return self._browser.ask(method, self._session, **parameters)

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Called with what happens in the tab."""
        if method == "Log.entryAdded":
            entry = params["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(params["args"]))
        waiting, self._waiting[method] = self._waiting[method], []
        for each in waiting:
            each.callback(None)

    def happens(self, method: str) -> Deferred[None]:
        """Wait for something in the tab."""
        waiting: Deferred[None] = Deferred()
        self._waiting[method].append(waiting)
        return waiting

    async def open(self, url: str) -> None:
        """Open a page, as a person does who types its address."""
        loaded = self.happens("Page.loadEventFired")
        await self.ask("Page.navigate", url=url)
        await loaded

    async def lead(self, script: str) -> None:
        """Run a script that leads to another page, and wait for that."""
        loaded = self.happens("Page.loadEventFired")
        await self.ask("Runtime.evaluate", expression=script, userGesture=True)
        await loaded

    async def run(self, script: str) -> Any:
        """Run a script in the page; gives its value, that of a promise once it is kept."""
        done = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise AssertionError(json.dumps(done["exceptionDetails"]))
        return done["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until something holds in the page."""
        turn = "await new Promise((go) => setTimeout(go, 10))"
        await self.run(f"(async () => {{ while (!({condition})) {turn}; }})()")

    async def text(self) -> str:
        """What the page shows."""
        return str(await self.run("document.body.innerText"))

    async def type(self, text: str) -> None:
        """Type a text where the focus is."""
        await self.ask("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        """Press a key, such as Enter (13) or Tab (9)."""
        known: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        if key == "Enter":
            known["text"] = "\r"
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **known)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **known)

    async def cookies(self) -> list[dict[str, Any]]:
        """All cookies, also those that no script can read."""
        found = await self._browser.ask("Storage.getCookies", browserContextId=self._context)
        return list(found["cookies"])


class BrowserTestCase(DaemonTestCase):
    """A test with a browser, and a server of pages elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.browser = Browser(self.reactor, os.path.abspath(os.path.join(self.folder, "browser")))
        self.addCleanup(self.browser.end)
        site: Any = Site(_Blank())
        listening = self.reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        #: The port of the pages elsewhere, at whatever name.
        self.elsewhere: int = listening.getHost().port


class _Blank(Resource):
    """A page of its own at each path."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Content-Type", b"text/html")
        return b"<!doctype html><title>elsewhere</title>"
