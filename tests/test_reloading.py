"""A configuration that is read again: what is taken over, and what a daemon says of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import Config, JobsConfig, ListenConfig, LogConfig, LogLevel
from dalga.errors import ConfigError
from dalga.model.permit import token_from_text
from dalga.reloading import InForce, Reread, Stays, check_doors, log_taken, reread
from dalga.settings import settings_of
from dalga.store.mysql import longest_statement
from tests.fakes import noting

TOKEN = token_from_text("ci", f"read sha256:{'0' * 64}")
OLD = Config()
#: Nothing that a reload can't change is in its way.
ANY = Stays(lambda longest: True, {}, [])


class RereadTests(SynchronousTestCase):
    def reread(self, new: Config, stays: Stays = ANY) -> Reread:
        return reread(lambda: new, InForce(OLD, settings_of(OLD)), stays)

    def test_payloads(self) -> None:
        """Longer ones than the start has looked for stay as they are, and are named."""
        new = replace(OLD, jobs=JobsConfig(max_payload=1_000_000, max_running=7))
        for takes, left, longest in ((True, (), 1_000_000), (False, ("[jobs] maxPayload",), 65536)):
            found = self.reread(new, ANY._replace(takes_payloads={1_000_000: takes}.__getitem__))
            self.assertEqual(found.changes.left, left)
            self.assertEqual(found.now.config.jobs.max_payload, longest)
            self.assertEqual(found.now.settings.max_payload, longest)
            self.assertEqual(found.now.settings.pace.slots, 7)

    def test_what_can_not_change(self) -> None:
        """It is as it was in what the daemon goes by, and is named again by the next reload."""
        new = replace(OLD, listen=ListenConfig(port=1), log=LogConfig(level=LogLevel.WARN))
        found = self.reread(new)
        self.assertEqual(found.changes, (("[log] level",), ("[listen] port",)))
        again = reread(lambda: new, found.now, ANY)
        self.assertEqual(again.changes, ((), ("[listen] port",)))

    def test_doors(self) -> None:
        """P12: it is the sockets that count, whatever address the file has by now."""
        stays = ANY._replace(reachable=["http://0.0.0.0:34006/"])
        error = self.assertRaises(ConfigError, self.reread, OLD, stays)
        self.assertIn("others than this machine can reach http://0.0.0.0:34006/", str(error))
        self.reread(replace(OLD, tokens=(TOKEN,)), stays)
        self.reread(replace(OLD, listen=ListenConfig(allow_unauthenticated=True)), stays)
        check_doors(OLD, [])

    def test_log(self) -> None:
        """One line on what is taken, one on what is left; and notes that were not there before."""
        old = replace(OLD, notes=("before",))
        was = InForce(old, settings_of(old))
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        for new, lines in (
            (old, ["the configuration was read again; nothing that can change now has changed"]),
            (
                replace(
                    OLD,
                    jobs=JobsConfig(max_running=7, retry=replace(OLD.jobs.retry, jitter=0.25)),
                    listen=ListenConfig(port=1),
                    notes=("before", "new"),
                ),
                [
                    "the configuration was read again; changed: [jobs] retryJitter, [jobs] "
                    "maxRunning",
                    "[listen] port: given otherwise than at the start of this process, which goes "
                    "on as it was; a restart takes them over",
                    "new",
                ],
            ),
        ):
            events.clear()
            log_taken(was, reread(partial(replace, new), was, ANY))
            self.assertEqual([formatEvent(event) for event in events], lines)


class LongestTests(SynchronousTestCase):
    def test_statements(self) -> None:
        """Up to 448 KiB of payload, a server that takes what Dalga writes anyway takes it."""
        for payload, longest in ((1, 2**20), (448 * 1024, 2**20), (448 * 1024 + 1, 2**20 + 2)):
            self.assertEqual(longest_statement(payload), longest, payload)
