"""``--check-config``, by the real commands: what a configuration comes to, or all its mistakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import KEYS, SECTIONS, Config
from dalga.config.shown import HIDDEN, lines_of
from tests.certificates import Authority
from tests.configs import SIGNING, ConfigTestCase, Given, as_ini
from tests.strategies import thorough
from tests.test_config import any_sections

ROOT = Path(__file__).parent.parent

SEED = "s3cr3t"
DIGEST = "5" * 64


class CommandTestCase(SynchronousTestCase):
    """Commands in a folder of their own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def write(self, name: str, text: str, mode: int = 0o600) -> str:
        """:return: the name of a file in the folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return name

    def check(
        self, *arguments: str, twistd: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dalga --check-config`` with further arguments."""
        run_twistd = "from twisted.scripts.twistd import run; run()"
        program = ["-c", run_twistd, "-n", "dalga"] if twistd else ["-m", "dalga"]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        done = subprocess.run(
            [sys.executable, *program, "--check-config", *arguments],
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn(SEED, done.stdout + done.stderr)
        return done

    def lines(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        """:return: what the command has shown, of a configuration without mistakes."""
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()


class CheckTests(CommandTestCase):
    def test_defaults(self) -> None:
        """Each key is shown; twistd shows the same. Nothing is opened or made."""
        done = self.check()
        shown = self.lines(done)
        self.assertEqual(self.check(twistd=True).stdout, done.stdout)
        self.assertTrue(all(line.endswith(" ; default") for line in shown if line[0] != "["))
        section, found = "", []
        for line in shown:
            if heading := re.fullmatch(r"\[(\w+)\]", line):
                section = heading[1]
            else:
                found.append((section, line.partition(" = ")[0]))
        expected = [(section, key) for section in KEYS for key in KEYS[section]]
        self.assertEqual(sorted(found), sorted(each for each in expected if each[0] != "mysql"))
        for line in (
            "host = 127.0.0.1",
            "timeout = 10s",
            "retryInterval = 0.5s",
            "keepFailed = 30d",
            "giveUp = none",
            'proxy = ""',
            "fixedIntervals = true",
            "maxPayload = 65536",
            "workers = 1",
        ):
            self.assertIn(f"{line} ; default", shown)
        self.assertEqual([*self.folder.iterdir()], [])

    def test_origins(self) -> None:
        """The file, a variable, an option, a file of a secret, and headers and tokens."""
        self.write("secret", f"{SEED}\n")
        self.write("tokens", f"ops = admin sha256:{DIGEST}\n")
        self.write(
            "dalga.toml",
            f"""
            [mysql]
            passwordFile = "secret"
            socket = "/run/a # b"
            [listen]
            shutdownTimeout = 20
            host = "0.0.0.0"
            [endpoint]
            baseurl = "https://u:{SEED}@h/"
            proxy = "http://u:{SEED}@p:1"
            secrets = ["{SIGNING}"]
            success = [200, "202-204"]
            [endpoint.headers]
            X-Key = "{SEED}"
            [endpoint.billing]
            baseurl = "http://b/"
            auth = "bearer"
            authSecret = "{SEED}"
            [alerts.ops]
            url = "http://h/{SEED}"
            [tokens]
            ci = "write:team/ read sha256:{DIGEST.replace("5", "6")}"
            """,
        )
        done = self.check(
            *("--config", "dalga.toml", "--workers", "3", "--debug"),
            DALGA_MYSQL_USER="ş",
            DALGA_TOKENS_FILE="tokens",
            DALGA_ENDPOINT_HEADERS_X_OTHER_FILE="secret",
        )
        shown = self.lines(done)
        for line in (
            "workers = 3 ; --workers",
            "level = debug ; --debug",
            "user = \\u015f ; DALGA_MYSQL_USER",
            "password = (hidden) ; dalga.toml: [mysql] passwordFile",
            'socket = "/run/a # b" ; dalga.toml: [mysql] socket',
            "shutdownTimeout = 20s ; dalga.toml: [listen] shutdownTimeout",
            "baseurl = https://h/ ; dalga.toml: [endpoint] baseurl",
            "proxy = http://(hidden)@p:1 ; dalga.toml: [endpoint] proxy",
            "secrets = (hidden) ; dalga.toml: [endpoint] secrets",
            "success = 200,202-204 ; dalga.toml: [endpoint] success",
            "[endpoint headers]",
            "X-Key = (hidden) ; dalga.toml: [endpoint.headers] X-Key",
            "X-Other = (hidden) ; DALGA_ENDPOINT_HEADERS_X_OTHER_FILE",
            "Authorization = (hidden) ; dalga.toml: [endpoint] baseurl",
            "[endpoint billing]",
            "authSecret = (hidden) ; dalga.toml: [endpoint.billing] authSecret",
            "[alerts ops]",
            "url = (hidden) ; dalga.toml: [alerts.ops] url",
            "ci = write:team/ read sha256:(hidden) ; dalga.toml: [tokens] ci",
            "ops = admin sha256:(hidden) ; the file of tokens that DALGA_TOKENS_FILE names, line "
            "1, ops",
        ):
            self.assertIn(line, shown)

    def test_mistakes(self) -> None:
        """All of them, on the standard error, also those of files that are named."""
        Authority().write(str(self.folder / "ca.pem"))
        self.write("rubbish.pem", SEED)
        self.write(
            "dalga.ini",
            f"""
            [jobs]
            maxRunning = 0
            workers = x
            [mysql]
            pasword = {SEED}
            ssl-ca = missing.pem
            [endpoint]
            baseurl = https://h/
            ca = ca.pem
            [endpoint billing]
            baseurl = https://h/
            ca = rubbish.pem
            authSecret = {SEED}
            [listen]
            host = 0.0.0.0
            endpoint = ssl:1:privateKey=nokey.pem, tcp:x, systemd:domain=INET:index=0, unix:d.sock
            """,
        )
        starts = [
            "dalga.ini: [mysql] has no key 'pasword', did you mean password?",
            "DALGA_LISTEN_PRT is not a variable of Dalga's",
            "dalga.ini: [jobs] maxRunning is '0'",
            "dalga.ini: [jobs] workers is 'x'",
            "dalga.ini: [endpoint billing] authSecret (not shown): it needs auth",
            "endpoint in [listen] is 'ssl:1:privateKey=nokey.pem': ",
            "endpoint in [listen] is 'tcp:x': ",
            "ssl-ca in [mysql] is 'missing.pem', which can't be read",
            "ca in [endpoint billing] is 'rubbish.pem', which has no certificate in it",
        ]
        for twistd in (False, True):
            done = self.check("--config", "dalga.ini", twistd=twistd, DALGA_LISTEN_PRT="1")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            lines = done.stderr.splitlines()
            self.assertEqual(len(lines), len(starts), lines)
            for line, start in zip(lines, starts, strict=True):
                self.assertTrue(line.startswith(f"dalga: {start}"), line)
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()),
            ["ca.pem", "dalga.ini", "rubbish.pem"],
        )

    def test_notes(self) -> None:
        """They are no mistakes."""
        self.write("dalga.ini", f"[mysql]\npassword = {SEED}\nskipLocked = no\n", 0o644)
        done = self.check("-c", "dalga.ini")
        self.assertEqual(done.returncode, 0)
        ignored, readable = done.stderr.splitlines()
        self.assertIn("dalga: dalga.ini: [mysql] skipLocked is ignored", ignored)
        self.assertIn("dalga: dalga.ini has a password or another secret in it", readable)
        self.assertIn("password = (hidden) ; dalga.ini: [mysql] password", done.stdout)

    def test_no_file(self) -> None:
        done = self.check("-c", "nowhere.ini")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("dalga: can't read the configuration file 'nowhere.ini'", done.stderr)

    def test_options_that_do_not_go_with_it(self) -> None:
        for option in ("--create-table", "--upgrade-table"):
            done = self.check(option)
            self.assertEqual(done.returncode, 2)
            self.assertIn("--check-config opens no table, so it goes with no option", done.stderr)


class ShownTests(ConfigTestCase):
    """What is shown is a configuration, which says the same again."""

    @thorough(100)
    @given(any_sections())
    def test_again(self, sections: dict[str, dict[str, Given]]) -> None:
        for name in sections:
            if name.lower() in ("endpoint", "alerts"):
                for key in [*sections[name]]:
                    if key.lower() == "proxy":
                        del sections[name][key]  # it has a user and a password in it
        config = self.load(as_ini(sections))
        lines = [line for line in lines_of(config) if f" = {HIDDEN} ;" not in line]
        self.assertEqual(self.load("\n".join(lines)), without_secrets(config))


def without_secrets(config: Config) -> Config:
    """The configuration with the default of each key that is a secret."""
    secret: Mapping[str, tuple[str, ...]] = {
        name: tuple(each.name for each in fields(section) if not each.repr)
        for name, section in SECTIONS.items()
    }

    def cleared(section: Any, name: str) -> Any:
        default = SECTIONS[name]()
        return replace(section, **{field: getattr(default, field) for field in secret[name]})

    is_mysql = isinstance(config.database, SECTIONS["mysql"])
    return replace(
        config,
        database=cleared(config.database, "mysql" if is_mysql else "sqlite"),
        endpoint=cleared(config.endpoint, "endpoint"),
        alerts=cleared(config.alerts, "alerts"),
    )
