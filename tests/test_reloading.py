"""A configuration that is read again: what is taken over, and what a daemon says of it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from tempfile import mkdtemp
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import (
    Config,
    EndpointConfig,
    JobsConfig,
    ListenConfig,
    LogConfig,
    LogLevel,
)
from dalga.errors import ConfigError, StartupError
from dalga.model.permit import token_from_text
from dalga.privileges import User, acting_as
from dalga.reloading import InForce, Reread, Stays, check_doors, log_taken, reread
from dalga.settings import settings_of
from dalga.store.mysql import longest_statement
from tests.certificates import Authority, dns, write
from tests.fakes import noting
from tests.test_privileges import NOBODY

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


class RightsTests(SynchronousTestCase):
    """A process that has had other privileges at its start."""

    def setUp(self) -> None:
        self.folder = mkdtemp()  # trial's own may be out of the other user's reach
        self.addCleanup(FilePath(self.folder).remove)
        os.chmod(self.folder, 0o755)
        self.paths = [os.path.join(self.folder, name) for name in ("cert", "key", "ca")]
        authority = Authority()
        write(authority.issue(dns("localhost")), *self.paths[:2])
        authority.write(self.paths[2])
        cert, key, ca = self.paths
        self.text = f"ssl:0:privateKey={key}:certKey={cert}"
        mail = EndpointConfig("https://mail.example/", ca=ca)
        self.config = replace(OLD, named_endpoints={"mail": mail})
        self.was = InForce(self.config, settings_of(self.config))
        self.stays = ANY._replace(certificates={self.text: b"as it was"})

    def reread(self, new: Config) -> Reread:
        with acting_as(User(NOBODY.pw_uid)):
            return reread(lambda: new, self.was, self.stays)

    def test_stay(self) -> None:
        """Files that it may read no more stay as they were read; all else is taken over."""
        for path in self.paths:
            os.chmod(path, 0)
        new = replace(self.config, tokens=(TOKEN,), jobs=JobsConfig(max_running=7))
        found = self.reread(new)
        self.assertEqual(found.changes.taken, ("[jobs] maxRunning", "[tokens] ci"))
        self.assertEqual(found.entrances, {})
        settings, was = found.now.settings, self.was.settings
        self.assertIs(settings.trusts["mail"], was.trusts["mail"])
        self.assertTrue(settings.same_endpoint(was, "mail"))
        for note, word in zip(settings.notes, ("ca in [endpoint mail]", self.text), strict=True):
            self.assertIn(word, note)
            self.assertTrue(note.endswith("it stays as it was read before"), note)

    def test_refused(self) -> None:
        """Others are mistakes: a file that is gone, and one of an endpoint that was changed."""
        os.chmod(self.paths[2], 0)
        changed = replace(self.config.named_endpoints["mail"], timeout=1.0)
        new = replace(self.config, named_endpoints={"mail": changed})
        self.assertIn("Permission denied", str(self.assertRaises(StartupError, self.reread, new)))
        os.chmod(self.paths[2], 0o644)
        self.reread(new)
        os.remove(self.paths[0])
        error = self.assertRaises(StartupError, self.reread, self.config)
        self.assertIn("No such file", str(error))


class LongestTests(SynchronousTestCase):
    def test_statements(self) -> None:
        """Up to 448 KiB of payload, a server that takes what Dalga writes anyway takes it."""
        for payload, longest in ((1, 2**20), (448 * 1024, 2**20), (448 * 1024 + 1, 2**20 + 2)):
            self.assertEqual(longest_statement(payload), longest, payload)
