"""Configurations for tests: written to files in each format, and read."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dalga.config.load import load_config
from dalga.config.sections import Config
from dalga.errors import ConfigError

#: Secrets that sign: of both kinds.
SIGNING = "whsec_" + base64.b64encode(b"s3cret" * 4).decode()
SIGNING_TOO = "whsk_" + base64.b64encode(b"s3cretly" * 4).decode()


def as_variable(section: str, key: str) -> str:
    """The variable for a key."""
    return f"DALGA_{section}_{key}".upper().replace("-", "_")


class ConfigTestCase(SynchronousTestCase):
    #: That of the files that are written.
    ending = ".ini"

    def write(self, text: str | bytes) -> str:
        """:return: the path of a file with that text."""
        path = Path(self.mktemp()).with_suffix(self.ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def load(self, text: str | bytes, **variables: str) -> Config:
        return load_config(self.write(text), variables)

    def refused(self, path: str | None, **variables: str) -> tuple[str, ...]:
        """:return: the sentences with which a file, or these variables, are refused."""
        error: ConfigError = self.assertRaises(ConfigError, load_config, path, variables)
        return error.mistakes

    def refusal(self, text: str | bytes | None, **variables: str) -> str:
        """:return: the sentence with which this is refused, its file named by its ending."""
        path = None if text is None else self.write(text)
        error = self.assertRaises(ConfigError, load_config, path, variables)
        sentence = str(error)
        self.assertNotIn("\n", sentence)
        return sentence.replace(str(path), self.ending[1:])


#: A value as it is written without quotes, or text.
Given = tuple[bool, str]


def as_ini(sections: dict[str, dict[str, Given]]) -> str:
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        for key, (plain, text) in keys.items():
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f"{key} = {text}" if plain else f'{key} = "{quoted}"')
    return "\n".join(lines)


def in_quotes(text: str) -> str:
    """As TOML and YAML have it; what YAML takes for a line end, or takes not at all, by number."""
    return re.sub(
        r"[^ -~\xA0-\u2027\u202A-\uD7FF\uE000-\uFEFE\uFF00-\uFFFD\U00010000-\U0010FFFF]",
        lambda found: f"\\U{ord(found[0]):08X}",
        json.dumps(text, ensure_ascii=False),
    )


def as_toml(sections: dict[str, dict[str, Given]]) -> str:
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        for key, (plain, text) in keys.items():
            lines.append(f"{key} = {text if plain else in_quotes(text)}")
    return "\n".join(lines)


def as_yaml(sections: dict[str, dict[str, Given]]) -> str:
    lines = []
    for name, keys in sections.items():
        lines.append(f"{name}:")
        for key, (plain, text) in keys.items():
            lines.append(f"  {key}: {text if plain else in_quotes(text)}")
    return "\n".join(lines)


FORMATS: list[tuple[str, Callable[[dict[str, dict[str, Given]]], str]]] = [
    (".ini", as_ini),
    (".toml", as_toml),
    (".yaml", as_yaml),
    (".YML", as_yaml),
]
