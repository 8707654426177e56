"""The configuration of daemons in processes of their own: tokens, and what a reload does."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from dalga.model.permit import digest_of, new_token
from tests.daemons import Daemon, DaemonTestCase
from tests.stores import each_engine

#: Two tokens, and their lines.
TOKEN, OTHER = (new_token(bytes([number]) * 32) for number in (1, 2))
LINE, OTHER_LINE = (f"admin sha256:{digest_of(token.encode()).hex()}" for token in (TOKEN, OTHER))


@each_engine(globals(), only=("sqlite",))
class TokensTests(DaemonTestCase):
    async def status(self, url: str, token: str) -> int:
        status, _ = await self.call(
            "GET", f"{url}/jobs", headers={"Authorization": f"Bearer {token}"}
        )
        return status

    async def reload(self, daemon: Daemon, says: str, **sections: Mapping[str, object]) -> None:
        """Have the file changed, and read again. Waits for what the log says, once more."""
        self.ini(**sections)
        before = len(daemon.output)
        daemon.send(signal.SIGHUP)
        await daemon.says(f"(?s)\\A.{{{before}}}.*{says}")

    async def test_reload(self) -> None:
        """P12: tokens are rotated while the daemon runs; the last one stays, as long as it must."""
        everywhere = {"host": "0.0.0.0", "port": 0}
        daemon, url = await self.start(listen=everywhere, tokens={"old": LINE})
        self.assertEqual(await self.status(url, TOKEN), 200)
        self.assertEqual((await self.call("GET", f"{url}/jobs"))[0], 401)
        self.assertEqual(await self.status(url, OTHER), 401)
        both = {"old": LINE, "new": OTHER_LINE}
        await self.reload(daemon, r"changed: \[tokens\] new\n", listen=everywhere, tokens=both)
        self.assertEqual([await self.status(url, each) for each in (TOKEN, OTHER)], [200, 200])
        rotated = {"new": OTHER_LINE}
        await self.reload(daemon, r"changed: \[tokens\] old\n", listen=everywhere, tokens=rotated)
        self.assertEqual([await self.status(url, each) for each in (TOKEN, OTHER)], [401, 200])
        # The port stays where it is, so no other host in the file makes this safe.
        await self.reload(
            daemon,
            r"all stays as it was: others than this machine can reach http://0\.0\.0\.0:",
            listen={"host": "127.0.0.1", "port": 0},
        )
        self.assertEqual((await self.call("GET", f"{url}/jobs"))[0], 401)
        allowed = {**everywhere, "allowUnauthenticated": "yes"}
        await self.reload(daemon, "there are no tokens any more, and the conf", listen=allowed)
        self.assertEqual((await self.call("GET", f"{url}/jobs"))[0], 200)
        for token in (TOKEN, OTHER, LINE[-64:], OTHER_LINE[-64:]):
            self.assertNotIn(token, daemon.output)

    async def test_mistakes(self) -> None:
        """A reload says all of them, a line each."""
        daemon, _ = await self.start(tokens={"old": LINE})
        says = r"jobs\] maxRunning is \'0\'.*\n[^\n]*as it was: [^\n]*\[tokens\] ci \(not shown\)"
        await self.reload(daemon, says, jobs={"maxRunning": 0}, tokens={"old": LINE, "ci": OTHER})
        self.assertNotIn(OTHER, daemon.output)

    async def test_open_to_all(self) -> None:
        """Each start says that all is open to others. With tokens, or on loopback, it is not."""
        says = "others than this machine can reach"
        everywhere = {"host": "0.0.0.0", "port": 0, "allowUnauthenticated": "yes"}
        daemon, _ = await self.start(listen=everywhere)
        await daemon.says(rf"{says} http://0\.0\.0\.0:\d+/, and can do anything there")
        loopback = {"port": 0, "allowUnauthenticated": "yes"}
        sections: list[dict[str, Mapping[str, object]]] = [
            {"listen": loopback},
            {"listen": everywhere, "tokens": {"old": LINE}},
        ]
        for each in sections:
            daemon.send(signal.SIGTERM)
            await daemon.ended
            daemon, _ = await self.start(**each)
            await daemon.says("time zone data")
            self.assertNotIn(says, daemon.output)

    async def test_start(self) -> None:
        """A start says all of them, too; nothing listens beyond loopback without tokens."""
        ini = self.ini(jobs={"maxRunning": 0}, listen={"host": "0.0.0.0", "port": 0})
        daemon = self.spawn("--config", ini)
        await daemon.ended
        self.assertEqual(daemon.status, 1)
        lines = daemon.output.strip().splitlines()
        self.assertEqual(len(lines), 2, lines)
        self.assertRegex(lines[0], r"^dalga: .*\[jobs\] maxRunning is '0': it takes")
        self.assertRegex(lines[1], r"^dalga: .*\[listen\] host is '0\.0\.0\.0': anybody who can")
