"""What a daemon takes over of a changed configuration, and what it can't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.config.changes import FIXED, Changes, changes, taken_over
from dalga.config.load import load_config
from dalga.config.sections import (
    KEYS,
    SECTIONS,
    AlertsConfig,
    Config,
    EndpointConfig,
    HistoryConfig,
    JobsConfig,
    ListenConfig,
    LogConfig,
    LogFormat,
    LogLevel,
    MetricsConfig,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.model.answers import Answers, statuses_from_text
from dalga.model.permit import Grant, Scope, Token
from dalga.model.retry import RetryPolicy
from dalga.settings import settings_of

BILLING = EndpointConfig("https://billing.example/", headers=(("X-Api-Key", "secret"),))
OPS = AlertsConfig("https://ops.example/hook", authorization="Basic secret")
CI = Token("ci", (Grant(Scope.READ),), b"secret")
OLD = Config(tokens=(CI,), named_endpoints={"billing": BILLING}, named_targets={"ops": OPS})


def of_billing(**new: Any) -> Config:
    return replace(OLD, named_endpoints={"billing": replace(BILLING, **new)})


class ChangesTests(SynchronousTestCase):
    #: What the new configuration is, what is taken over, and what is left.
    TABLE: tuple[tuple[Config, tuple[str, ...], tuple[str, ...]], ...] = (
        (OLD, (), ()),
        (
            replace(OLD, jobs=JobsConfig(max_running=7, workers=3, retry=RetryPolicy(jitter=0.25))),
            ("[jobs] retryJitter", "[jobs] maxRunning"),
            ("[jobs] workers",),
        ),
        (
            replace(OLD, listen=ListenConfig(host="::1", port=1, idle_timeout=5.0)),
            ("[listen] idleTimeout",),
            ("[listen] host", "[listen] port"),
        ),
        (replace(OLD, database=SQLiteConfig("other")), (), ("[sqlite] path",)),
        (replace(OLD, database=MySQLConfig()), (), ("[sqlite]", "[mysql]")),
        (
            replace(OLD, log=LogConfig(LogFormat.JSON, LogLevel.DEBUG)),
            ("[log] level",),
            ("[log] format",),
        ),
        (
            replace(OLD, history=HistoryConfig(keep=timedelta(days=1)), metrics=MetricsConfig(5)),
            ("[history] keep", "[metrics] paths"),
            (),
        ),
        (
            of_billing(
                answers=Answers(give_up=statuses_from_text("410", or_none=True)),
                headers=(("X-Api-Key", "other"),),
            ),
            ("[endpoint billing] giveUp", "[endpoint billing] headers"),
            (),
        ),
        (replace(OLD, named_endpoints={}), ("[endpoint billing]",), ()),
        (
            replace(OLD, named_endpoints={"billing": BILLING, "mail": BILLING}),
            ("[endpoint mail]",),
            (),
        ),
        (
            replace(OLD, named_targets={"ops": replace(OPS, authorization="Basic other")}),
            ("[alerts ops] url",),
            (),
        ),
        (
            replace(OLD, tokens=(CI._replace(name="new"),)),
            ("[tokens] ci", "[tokens] new"),
            (),
        ),
        (replace(OLD, tokens=(CI._replace(digest=b"other"),)), ("[tokens] ci",), ()),
        (replace(OLD, alerts=OPS, named_targets={}), ("[alerts] url", "[alerts ops]"), ()),
    )

    def test_named(self) -> None:
        """Keys are named by their sections. No value is: it may be a secret."""
        for new, taken, left in self.TABLE:
            found = changes(OLD, new)
            self.assertEqual(found, Changes(taken, left))
            self.assertNotIn("secret", str(found))

    def test_taken_over(self) -> None:
        """What is left stays as it is, and all else is new: so the next reload names it again."""
        for new, _, left in self.TABLE:
            now = taken_over(OLD, new)
            self.assertEqual(changes(OLD, now).left, ())
            self.assertEqual(changes(now, new), Changes((), left))

    def test_fixed_keys(self) -> None:
        """Each of them is a key."""
        for section, fixed in FIXED.items():
            self.assertLessEqual(fixed, set(KEYS[section]), section)


class SettingsTests(SynchronousTestCase):
    """What is taken over reaches the parts: it is in the `Settings` that they are handed."""

    #: A value of each key that is not its default.
    OTHER: Mapping[str, Mapping[str, str]] = MappingProxyType(
        {
            "jobs": {
                "randomizationFactor": "0.25",
                "fixedIntervals": "false",
                "retryInterval": "2s",
                "retryMultiplier": "3",
                "retryMaxInterval": "3h",
                "retryJitter": "0.25",
                "retryStopAfter": "1h",
                "maxRunning": "7",
                "scanFrequency": "3s",
                "shutdownTimeout": "3s",
                "maxPayload": "100",
            },
            "listen": {
                "idleTimeout": "5s",
                "readTimeout": "5s",
                "hosts": "dalga.example",
                "origins": "https://dalga.example",
                "rootPath": "/dalga",
                "trustedProxies": "10.0.0.0/8",
                "allowUnauthenticated": "yes",
            },
            "history": {"mode": "off", "keep": "1d", "keepFailed": "1d", "maxRows": "5"},
            "audit": {"keep": "1d"},
            "metrics": {"paths": "5"},
            "log": {"level": "debug"},
        }
    )
    #: Keys that are asked for in the `Config`, where they stand.
    ELSEWHERE = frozenset({"[metrics] paths", "[log] level", "[listen] allowUnauthenticated"})

    def values(self, text: str) -> dict[str, Any]:
        """All of the settings that can be compared."""
        path = self.mktemp()
        Path(path).write_text(text)
        settings = settings_of(load_config(path, {}))
        return {
            field.name: getattr(settings, field.name)
            for field in fields(settings)
            if "trust" not in field.name
        }

    def test_each_key(self) -> None:
        """But for those of endpoints and targets, which are handed on whole."""
        before, missing = self.values(""), set()
        for section in SECTIONS.keys() - {"endpoint", "alerts", "mysql", "sqlite"}:
            for key in set(KEYS[section]) - FIXED.get(section, frozenset()):
                text = f"[{section}]\n{key} = {self.OTHER[section][key]}\n"
                if self.values(text) == before:
                    missing.add(f"[{section}] {key}")
        self.assertEqual(missing, self.ELSEWHERE)
