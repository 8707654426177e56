"""
Secrets in the configuration: tokens, secrets from files of their own, and what no sentence repeats.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dalga.config import content as reading
from dalga.config.formats import read_file
from dalga.config.load import load_config
from dalga.config.names import file_keys
from dalga.config.secretfile import MAX_SECRET
from dalga.config.sections import SECTIONS, Config, MySQLConfig
from dalga.config.shown import lines_of
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.permit import new_token, token_from_text
from tests.configs import FORMATS, SIGNING, SIGNING_TOO, ConfigTestCase, Given, as_variable
from tests.strategies import thorough

#: The SHA-256 of two tokens.
DIGEST = "sha256:" + "5" * 64
OTHER_DIGEST = "sha256:" + "6" * 64

#: Each key that a file of its own may give, with a value, and what the key does not go without.
IN_FILES: list[tuple[str, str, str, dict[str, str]]] = [
    ("mysql", "password", "s3cr%t", {}),
    ("endpoint", "baseurl", "https://u:s3cret@h/", {}),
    ("endpoint", "secrets", f"{SIGNING},{SIGNING_TOO}", {}),
    ("endpoint", "authSecret", "s3cret", {"auth": "basic", "authUser": "u"}),
    ("endpoint", "proxy", "http://u:s3cret@p:1", {}),
    ("alerts", "url", "http://h/s3cret", {}),
    ("alerts", "heartbeatUrl", "http://h/s3cret", {}),
    ("alerts", "secrets", SIGNING, {"url": "http://h/"}),
]


def password_of(config: Config) -> str:
    assert isinstance(config.database, MySQLConfig)
    return config.database.password


class FileTests(ConfigTestCase):
    """Secrets in files of their own."""

    def file(self, content: str | bytes, mode: int = 0o600) -> str:
        """:return: the path of a file with that content."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return str(path)

    def test_whole(self) -> None:
        listed = [(section, key) for section, key, *_ in IN_FILES]
        keys = [(section, key) for section in SECTIONS for key in file_keys(section).values()]
        self.assertEqual(listed, keys)

    def test_every_key(self) -> None:
        """From a file of any format, in any case, and from a variable."""
        for section, key, text, beside in IN_FILES:
            path = self.file(text + "\n")
            others = {as_variable(section, name): value for name, value in beside.items()}
            expected = load_config(None, {**others, as_variable(section, key): text})
            self.assertNotEqual(expected, load_config(None, {}))
            config = load_config(None, {**others, f"{as_variable(section, key)}_FILE": path})
            self.assertEqual(config, expected)
            self.assertEqual(config.notes, ())
            for ending, render in FORMATS:
                self.ending = ending
                for name in (f"{key}File", f"{key}file", f"{key}FILE".upper()):
                    written = render({section: {name: (False, path)}})
                    self.assertEqual(self.load(written, **others), expected)

    def test_names(self) -> None:
        """Endpoints and targets with names have the same keys."""
        path = self.file("s3cret")
        url = self.file("http://h/s3cret")
        config = load_config(
            None,
            {
                "DALGA_ENDPOINT_EU_MAIL_BASEURL": "http://h/",
                "DALGA_ENDPOINT_EU_MAIL_AUTH": "bearer",
                "DALGA_ENDPOINT_EU_MAIL_AUTHSECRET_FILE": path,
                "DALGA_ENDPOINT_EU_MAIL_HEADERS_X_KEY_FILE": path,
                "DALGA_ALERTS_OPS_URL_FILE": url,
            },
        )
        self.assertEqual(
            config.named_endpoints["eu-mail"].headers,
            (("X-Key", "s3cret"), ("Authorization", "Bearer s3cret")),
        )
        self.assertEqual(config.named_targets["ops"].url, "http://h/s3cret")
        again = self.load(
            f"[endpoint eu-mail]\nbaseurl = http://h/\nauth = bearer\nauthSecretFile = {path}\n"
            f"[endpoint eu-mail headers]\nX-KeyFile = {path}\n[alerts ops]\nurlFile = {url}"
        )
        self.assertEqual(again, config)

    def test_headers(self) -> None:
        path = self.file("s3cret")
        for ending, text in [
            (".ini", f"[endpoint.headers]\nX-KeyFile = {path}"),
            (".toml", f"[endpoint.headers]\nX-KeyFile = '{path}'"),
            (".yaml", f"endpoint:\n  headers:\n    X-KeyFile: {path}"),
        ]:
            self.ending = ending
            self.assertEqual(self.load(text).endpoint.headers, (("X-Key", "s3cret"),))
        config = load_config(None, {"DALGA_ENDPOINT_HEADERS_X_KEY_FILE": path})
        self.assertEqual(config.endpoint.headers, (("X-Key", "s3cret"),))

    def test_headers_called_file(self) -> None:
        self.assertEqual(
            self.load(
                "[endpoint.headers]\nX-Log-File = a\nFile = b\nx-logfile = c"
            ).endpoint.headers,
            (("X-Log-File", "a"), ("File", "b"), ("x-logfile", "c")),
        )
        refusal = self.refusal(None, DALGA_ENDPOINT_HEADERS_FILE="/run/secrets/s3cret")
        self.assertEqual(
            refusal,
            "DALGA_ENDPOINT_HEADERS_FILE (not shown): each header takes a variable of its own, "
            "with its name behind DALGA_ENDPOINT_HEADERS_, such as "
            "DALGA_ENDPOINT_HEADERS_X_API_KEY",
        )

    def test_line_ends(self) -> None:
        """The last line end belongs to no secret, and all else does."""
        for content, password in [
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            (" s3cret \t"[:-1] + "\n", " s3cret "),
            ('"s3cret" # x', '"s3cret" # x'),
            ("ş🔑", "ş🔑"),
            ("x" * MAX_SECRET, "x" * MAX_SECRET),
        ]:
            config = load_config(None, {"DALGA_MYSQL_PASSWORD_FILE": self.file(content)})
            self.assertEqual(password_of(config), password)
        refusal = self.refusal(None, DALGA_MYSQL_PASSWORD_FILE=self.file("s3cret\n\n"))
        self.assertEqual(
            refusal,
            "DALGA_MYSQL_PASSWORD_FILE (not shown): it has the control character U+000A, leave it "
            "out",
        )
        secrets = self.file(f"{SIGNING}\n{SIGNING_TOO}\n")
        config = load_config(None, {"DALGA_ENDPOINT_SECRETS_FILE": secrets})
        self.assertEqual(config.endpoint.secrets, (SIGNING, SIGNING_TOO))

    def test_refused(self) -> None:
        """By the name of its key, with nothing of its content, and without its path."""
        here = self.mktemp()
        os.makedirs(here)
        for path, why in [
            (f"{here}/s3cret", "it can't be read (No such file or directory)"),
            ("s3cret", "it can't be read (No such file or directory)"),
            ("", "it can't be read (No such file or directory)"),
            (here, "it can't be read (Is a directory)"),
            ("s3cret\0", "it can't be read (its path has a NUL)"),
            (self.file(""), "it is empty"),
            (self.file("\n"), "it is empty"),
            (self.file(b"s3cret\xff"), "it is not UTF-8 text"),
            (self.file("s3cret" * MAX_SECRET), "it is too large for a secret, 65536 bytes at most"),
            ("/dev/zero", "it is too large for a secret, 65536 bytes at most"),
        ]:
            name = "DALGA_MYSQL_PASSWORD_FILE"
            refusal = self.refusal(None, **{name: path})
            self.assertIn(f"the file that {name} names: {why}", refusal)
            self.assertTrue(
                refusal.endswith(
                    "; it takes the path of a file that has the password in it and nothing else"
                )
            )
            self.assertNotIn("s3cret", refusal)
            self.assertNotIn(here, refusal)
        refusal = self.refusal("[endpoint]\nauthSecretFile = s3cret")
        self.assertIn("the file that ini: [endpoint] authSecretFile names: it can't", refusal)
        self.ending = ".toml"
        self.assertEqual(
            self.refusal("[mysql]\npasswordFile = 7"),
            "toml: [mysql] passwordFile (not shown): it takes the path of a file, so put it in "
            "double quotes",
        )

    def test_both(self) -> None:
        say = "say the same, leave one of them"
        path = self.file("s3cret")
        self.assertEqual(
            self.refusal(f"[mysql]\npassword = s3cret\npasswordFile = {path}"),
            f"ini: [mysql] password and ini: [mysql] passwordFile {say}",
        )
        self.assertEqual(
            self.refusal(None, DALGA_MYSQL_PASSWORD="s3cret", DALGA_MYSQL_PASSWORD_FILE=path),
            f"DALGA_MYSQL_PASSWORD and DALGA_MYSQL_PASSWORD_FILE {say}",
        )
        self.assertEqual(
            self.refusal(f"[endpoint.headers]\nX-KeyFile = {path}\nx-key = s3cret"),
            f"ini: [endpoint.headers] X-KeyFile and ini: [endpoint.headers] x-key {say}",
        )
        names = ("DALGA_ENDPOINT_HEADERS_X_KEY", "DALGA_ENDPOINT_HEADERS_X_KEY_FILE")
        self.assertEqual(
            self.refusal(None, **{names[0]: "s3cret", names[1]: path}),
            f"{names[0]} and {names[1]} {say}",
        )

    def test_variable_before_file(self) -> None:
        """What it replaces is not even read."""
        for text, variables in [
            ("[mysql]\npasswordFile = nowhere", {"DALGA_MYSQL_PASSWORD": "s3cret"}),
            ("[mysql]\npassword = x", {"DALGA_MYSQL_PASSWORD_FILE": self.file("s3cret")}),
        ]:
            self.assertEqual(password_of(self.load(text, **variables)), "s3cret")
        for text, variables in [
            ("X-KeyFile = nowhere", {"DALGA_ENDPOINT_HEADERS_X_KEY": "s3cret"}),
            ("X-Key = x", {"DALGA_ENDPOINT_HEADERS_X_KEY_FILE": self.file("s3cret")}),
        ]:
            config = self.load(f"[endpoint.headers]\n{text}", **variables)
            self.assertEqual(config.endpoint.headers, (("X-Key", "s3cret"),))

    def test_other_keys_have_none(self) -> None:
        for text, hint in [
            ("[mysql]\nhostFile = x", "has no key 'hostFile', did you mean host?"),
            ("[mysql]\npaswordfile = x", "has no key 'paswordfile', did you mean passwordFile?"),
            ("[endpoint]\nauthsecret_file = x", "did you mean authSecretFile?"),
        ]:
            self.assertIn(hint, self.refusal(text))
        for name, hint in [
            ("DALGA_MYSQL_PASWORD_FILE", ", did you mean DALGA_MYSQL_PASSWORD_FILE?"),
            ("DALGA_SQLITE_PATH_FILE", ", did you mean DALGA_SQLITE_PATH?"),
        ]:
            self.assertIn(
                f"{name} is not a variable of Dalga's{hint}", self.refusal(None, **{name: "x"})
            )

    def test_who_can_read_private_keys(self) -> None:
        """Others than the owner: a note, wherever the key is named."""
        for mode, who in [(0o600, ""), (0o640, "its group"), (0o604, "this machine")]:
            key = self.file("-----BEGIN PRIVATE KEY-----", mode)
            for text in (
                f"[endpoint]\nbaseurl = https://h/\ncert = c.pem\nkey = {key}",
                f"[endpoint x]\nbaseurl = https://h/\ncert = c.pem\nkey = {key}",
                f"[listen]\nendpoint = ssl:1:privateKey={key}:certKey=c.pem:interface=127.0.0.1",
                f"[mysql]\nssl-mode = required\nssl-cert = c.pem\nssl-key = {key}",
            ):
                notes = load_config(self.file(text), {}).notes
                expected = f"{key!r} has a private key in it, and every user of {who} can read it"
                self.assertEqual(len(notes), who != "", (oct(mode), text))
                for note in notes:
                    self.assertIn(expected, note)

    def test_who_can_read(self) -> None:
        """Others than the owner: a note, for what has a secret in it."""
        reads = "user of {} can read it: chmod 600 leaves it to its owner"
        for mode, who in [(0o600, ""), (0o700, ""), (0o640, "its group"), (0o604, "this machine")]:
            for text, has_secret in [
                ("[mysql]\npassword = s3cret", True),
                ("[mysql]\npassword =\nuser = root", False),
                ("[endpoint]\nbaseurl = https://u:s3cret@h/", True),
                ("[endpoint]\nbaseurl = https://h/", False),
                ("[endpoint.headers]\nX-Key = s3cret", True),
                (f"[endpoint]\nsecrets = {SIGNING}", True),
                (f"[tokens]\nci = read {DIGEST}", False),
            ]:
                path = self.file(text, mode)
                notes = load_config(path, {}).notes
                self.assertEqual(len(notes), has_secret and who != "", (oct(mode), text))
                for note in notes:
                    self.assertIn(f"{path} has a password or another secret in it, and ", note)
                    self.assertIn(reads.format(who), note)
            path = self.file("s3cret", mode)
            notes = load_config(None, {"DALGA_MYSQL_PASSWORD_FILE": path}).notes
            self.assertEqual(
                [f"{note}." for note in notes],
                [
                    "the file that DALGA_MYSQL_PASSWORD_FILE names has a secret in it, and every "
                    f"{reads.format(who)}."
                ]
                if who
                else [],
            )

    def test_a_pipe(self) -> None:
        """As ``<(pass show dalga)`` of a shell is."""
        reading, writing = os.pipe()
        os.write(writing, b"s3cret\n")
        os.close(writing)
        try:
            config = load_config(None, {"DALGA_MYSQL_PASSWORD_FILE": f"/dev/fd/{reading}"})
        finally:
            os.close(reading)
        self.assertEqual(password_of(config), "s3cret")
        self.assertEqual(config.notes, ())

    def test_a_pipe_that_nobody_writes_to(self) -> None:
        """P5: it holds up no start, no reload and no stop."""
        self.patch(reading, "PATIENCE", 0.05)
        path = self.mktemp()
        os.mkfifo(path)
        why = "(nothing has come through it for 0.05 s)"
        self.assertIn(f"can't be read {why}", self.refusal(None, DALGA_MYSQL_PASSWORD_FILE=path))
        self.assertIn(why, self.refused(path)[0])

    def test_a_line_that_has_lost_its_end(self) -> None:
        """P12: the value of a key that is no secret has one in it."""
        for section, key, value in (
            ("mysql", "host", "db password = s3cret"),
            ("endpoint", "auth", "bearer authSecret = s3cret"),
            ("mysql", "host", f"db {SIGNING}"),
            ("mysql", "host", f"db {SIGNING_TOO}"),
            ("mysql", "host", f"db {new_token(b's3cret--' * 4)}"),
        ):
            refusal = self.refusal(f"[{section}]\n{key} = {value}")
            self.assertIn(f"[{section}] {key} (not shown): it takes", refusal)
            self.assertNotIn(value[-8:], refusal)

    def test_a_second_line(self) -> None:
        """P12: one of two secrets on a line of its own is taken for a key, and is not shown."""
        for line in (SIGNING, SIGNING_TOO, "whsec_ab+s3cret=", f"{'s3cret' * 8}==", "s3cr/et="):
            for section in ("endpoint", "endpoint billing", "alerts"):
                refusal = self.refusal(f"[{section}]\nsecrets = {SIGNING}\n  {line}=\n")
                self.assertIn(f"[{section}] has no key of that name (not shown), ", refusal)
                self.assertNotIn(line[6:10], refusal)
        self.assertIn(
            "has no key of that name (not shown)", self.refusal(f"[mysql]\n{new_token(bytes(32))}=")
        )


class TokenTests(ConfigTestCase):
    """``[tokens]``."""

    def test_formats(self) -> None:
        line = f"write:team/,endpoint=billing read {DIGEST}"
        beside = {"DALGA_ENDPOINT_BILLING_BASEURL": "http://h/"}
        expected = (token_from_text("b", f"admin {OTHER_DIGEST}"), token_from_text("ci", line))
        for ending, text in [
            (".ini", f"[Tokens]\nci = {line} ; of the builds\nb = admin {OTHER_DIGEST}"),
            (".ini", f'[tokens]\nci = "{line}"\nb = "admin {OTHER_DIGEST}" # x'),
            (".toml", f"[tokens]\nci = '{line}'\nb = 'admin {OTHER_DIGEST}'"),
            (".yaml", f"tokens:\n  ci: {line}\n  b: admin {OTHER_DIGEST}"),
        ]:
            self.ending = ending
            self.assertEqual(self.load(text, **beside).tokens, expected)
        variables = {"DALGA_TOKENS_CI": line, "DALGA_TOKENS_B": f"admin {OTHER_DIGEST}"}
        self.assertEqual(load_config(None, {**beside, **variables}).tokens, expected)
        self.assertEqual(load_config(None, {}).tokens, ())

    def test_file_of_tokens(self) -> None:
        path = self.write(
            f"; tokens\n\n# more\nci = read {DIGEST}\n  ops=admin {OTHER_DIGEST} ; of Ada\r\n"
        )
        expected = (
            token_from_text("ci", f"read {DIGEST}"),
            token_from_text("ops", f"admin {OTHER_DIGEST}"),
        )
        self.assertEqual(load_config(None, {"DALGA_TOKENS_FILE": path}).tokens, expected)
        self.assertEqual(self.load(f"[tokens]\nfile = {path}").tokens, expected)
        text = f"[tokens]\nfile = nowhere\na = read sha256:{'7' * 64}"
        config = self.load(text, DALGA_TOKENS_FILE=path)
        self.assertEqual([token.name for token in config.tokens], ["a", "ci", "ops"])

    def test_variable_before_file(self) -> None:
        for name in ("ci-eu", "ci_eu"):
            config = self.load(f"[tokens]\n{name} = rubbish", DALGA_TOKENS_CI_EU=f"read {DIGEST}")
            self.assertEqual(config.tokens, (token_from_text(name, f"read {DIGEST}"),))
        config = load_config(None, {"DALGA_TOKENS_CI_EU": f"read {DIGEST}"})
        self.assertEqual(config.tokens[0].name, "ci-eu")

    def test_mistakes(self) -> None:
        """Nothing of a line is repeated: somebody may have put the token itself there."""
        name = (
            "has a key that can't be a token's name (not shown): the name of a token takes lower "
            "case letters"
        )
        for text, expected in [
            ("ci = s3cret", "ci (not shown): it has no sha256:"),
            ("ci = dalga_s3cret", "ci (not shown): it has the token itself in it"),
            (f"ci = s3cret {DIGEST}", "ci (not shown): its word 1 is no grant"),
            ("ci =", "ci (not shown): it is empty"),
            (f"s3cret.S = read {DIGEST}", name),
            (f"dalga_S3cret = read {DIGEST}", name),
            (
                f"ci = read {DIGEST}\nci2 = read {DIGEST}",
                "ci2 (not shown): it is the same token as",
            ),
            (
                f"a-b = read {DIGEST}\na_b = read {OTHER_DIGEST}",
                "a_b: there is a token a-b as well",
            ),
            (
                f"ci = write:endpoint=billing {DIGEST}",
                "ci (not shown): there is no endpoint billing, add baseurl = ... to [endpoint "
                "billing], or name another one",
            ),
            ('ci = "s3cret', "ci (not shown): what starts with"),
        ]:
            refusal = self.refusal(f"[tokens]\n{text}")
            self.assertIn(f"ini: [tokens] {expected}", refusal)
            self.assertNotIn("s3cret", refusal.lower())
        twice, _ = self.refused(self.write("[tokens]\nfile = s3cret\nFILE = b"))
        self.assertIn("[tokens] file is there twice, leave one of them", twice)
        self.ending = ".toml"
        for text in ("ci = 7", "ci = ['s3cret']", "ci = {s3cret = 1}", "file = 7"):
            refusal = self.refusal(f"[tokens]\n{text}")
            self.assertRegex(refusal, r"\[tokens\] \w+ (\(not shown\)|is a \w+): it takes")
            self.assertNotIn("s3cret", refusal)

    def test_no_tokens(self) -> None:
        """Where somebody expects closed doors, none may be open."""
        why = "has no token in it, so all would be open"
        for ending, text in [(".ini", "[tokens]"), (".toml", "[tokens]"), (".yaml", "tokens:")]:
            self.ending = ending
            self.assertIn(f"[tokens] in {ending[1:]} {why}", self.refusal(text))
        path = self.write("# none yet\n")
        self.assertIn(
            f"the file of tokens that DALGA_TOKENS_FILE names {why}",
            self.refusal(None, DALGA_TOKENS_FILE=path),
        )

    def test_mistakes_in_a_file_of_tokens(self) -> None:
        path = self.write(
            f"dalga_s3cret\nci = dalga_s3cret\nS3cret = read {DIGEST}\nci = read {DIGEST}\n"
            f"ci = read {OTHER_DIGEST}\nfile = s3cret\n"
        )
        where = "the file of tokens that DALGA_TOKENS_FILE names"
        lines = self.refused(None, DALGA_TOKENS_FILE=path)
        for line, expected in zip(
            lines,
            [
                f"{where}, line 1: this is no token's line",
                f"{where}, line 3: this is no token's line",
                f"{where}, line 2, ci and {where}, line 4, ci have the same name, leave one of",
                f"{where}, line 2, ci and {where}, line 5, ci have the same name, leave one of",
                f"{where}, line 6: this is no token's line",
                f"{where}, line 2, ci (not shown): it has the token itself in it",
            ],
            strict=True,
        ):
            self.assertIn(expected, line)
            self.assertNotIn("s3cret", line.lower())
        for path, why in [
            ("s3cret", "it can't be read (No such file or directory)"),
            ("/dev/null", "it is empty"),
        ]:
            refusal = self.refusal(None, DALGA_TOKENS_FILE=path)
            self.assertIn(f"{where}: {why}; its lines are name = scope", refusal)
            self.assertNotIn("s3cret", refusal)
        same = self.write(f"ci = read {DIGEST}")
        self.assertIn(
            f"DALGA_TOKENS_CI and {where}, line 1, ci have the same name",
            self.refusal(None, DALGA_TOKENS_FILE=same, DALGA_TOKENS_CI=f"read {OTHER_DIGEST}"),
        )

    def test_variables_that_are_none(self) -> None:
        for name in ("DALGA_TOKENS", "DALGA_TOKENS_", "DALGA_TOKENS_ci", "DALGA_TOKENS_A__B"):
            refusal = self.refusal(None, **{name: f"read {DIGEST}"})
            self.assertIn(f"{name} is not a variable of Dalga's: each token takes one", refusal)
        links = {"DALGA_TOKENS_PORT": "tcp://10.0.0.11:80"}
        config = load_config(None, links)
        self.assertEqual((config.tokens, config.links), ((), tuple(links)))


class MistakesTests(ConfigTestCase):
    """All mistakes are said at once, and none that only follows from another."""

    def test_all(self) -> None:
        path = self.write(
            "[jobs]\nmaxRunning = 0\nworkers = x\nnone = 1\n"
            "[msql]\nhost = a\n"
            "[mysql]\nport = x\nssl-mode = verify-ca\npassword = s3cret\npassword_file = x\n"
            "[endpoint billing]\ntimeout = never\nbase_url = http://h/\n"
            "[endpoint Mail]\nbaseurl = http://h/\n"
            "[listen]\nport = 99999\nhost = ::\n"
            f"[tokens]\nci = read\nops = write:endpoint=mail {DIGEST}\n"
        )
        found = self.refused(path, DALGA_LOG_LEVEL="loud", DALGA_MYSQL_USR="x")
        starts = [
            f"{path}: [jobs] has no key 'none'",
            f"{path}: there is no section [msql]",
            f"{path}: [mysql] has no key 'password_file', did you mean passwordFile?",
            f"{path}: [endpoint billing] has no key 'base_url', did you mean baseurl?",
            f"{path}: [endpoint Mail] has the name 'Mail'",
            "DALGA_MYSQL_USR is not a variable of Dalga's",
            f"{path}: [mysql] port is 'x'",
            f"{path}: [jobs] maxRunning is '0'",
            f"{path}: [jobs] workers is 'x'",
            f"{path}: [tokens] ci (not shown): it has no sha256:",
            f"{path}: [listen] port is '99999'",
            f"{path}: [endpoint billing] timeout is 'never'",
            "DALGA_LOG_LEVEL is 'loud'",
        ]
        self.assertEqual(len(found), len(starts), found)
        for sentence, start in zip(found, starts, strict=True):
            self.assertTrue(sentence.startswith(start), sentence)

    def test_rules(self) -> None:
        """Rules across keys give all of theirs, where the keys themselves are well."""
        path = self.write(
            "[jobs]\nworkers = 4\nretryInterval = 2s\nretryMaxInterval = 1s\n"
            "[endpoint]\nalerts = ops\nca = a\nkey = b\n"
            "[endpoint billing]\ntimeout = 1s\n"
            "[alerts mail]\nformat = slack\nheartbeatUrl = http://h/\n"
            "[listen]\nhost = ::\nendpoint = tcp:1\n"
        )
        found = self.refused(path)
        parts = [
            "[jobs] retryMaxInterval is '1s'",
            "[endpoint] ca is 'a'",
            "[endpoint] key is 'b': it is not used",
            "[endpoint] key is 'b': it needs cert",
            "[endpoint billing] timeout: the endpoint billing has no baseurl",
            "[alerts mail] heartbeatUrl (not shown): it stands in [alerts] alone",
            "[listen] host is '::'",
            "[listen] endpoint is 'tcp:1'",
        ]
        self.assertEqual(len(found), len(parts), found)
        for sentence, part in zip(found, parts, strict=True):
            self.assertIn(part, sentence)

    def test_a_section_of_another_program(self) -> None:
        """A heading that is near to no section leaves all else clear."""
        path = self.write("[nosuch]\na = 1\n[endpoint billing]\ntimeout = 1s\n[x.y]\n")
        found = self.refused(path)
        self.assertEqual(len(found), 3, found)
        self.assertIn("there is no section [nosuch]", found[0])
        self.assertIn("there is no section [x.y]", found[1])
        self.assertIn("the endpoint billing has no baseurl", found[2])

    def test_what_only_follows(self) -> None:
        for text, variables, expected in [
            # A section that is misspelt may have said where jobs live, and who comes in.
            ("[jobs]\nworkers = 4\n[msql]", {}, "there is no section [msql]"),
            ("[listen]\nhost = ::\n[token]", {}, "there is no section [token]"),
            (
                f"[tokens]\nci = read:endpoint=mail {DIGEST}\n[endpoint mail eu]",
                {},
                "there is no section [endpoint mail eu]",
            ),
            # The tokens have a mistake; so has the name of the endpoint, and that of the target.
            ("[listen]\nhost = ::\n[tokens]\nci = x", {}, "[tokens] ci"),
            (f"[tokens]\nci = read:endpoint=mail {DIGEST}\n[endpoint Mail]", {}, "has the name"),
            ("[endpoint]\nalerts = ops\n[alerts]\nurl = x", {}, "[alerts] url"),
            # The file can't be read at all.
            ("[", {"DALGA_ENDPOINT_BILLING_TIMEOUT": "1s", "DALGA_LISTEN_HOST": "::"}, "line 1"),
        ]:
            sentences = self.refused(self.write(text), **variables)
            self.assertEqual(len(sentences), 1, sentences)
            self.assertIn(expected, sentences[0])

    def test_repr(self) -> None:
        """What a value was given as, and what it was read as, is in no `repr`."""
        (section,) = read_file(self.write("[mysql]\npassword = s3cret"))
        value = Value("password", "s3cret", "here", secret=True, elements=("s3cret",))
        self.assertNotIn("s3cret", repr(section) + repr(value))

    def test_once(self) -> None:
        """A value of a section that two parts are made of is refused once."""
        self.assertEqual(len(self.refused(self.write("[endpoint]\nbaseurl = x\nca = a"))), 1)


#: What is looked for.
SEED = "s3cr3t"

#: A configuration with a secret wherever there may be one.
SEEDED: dict[str, dict[str, str]] = {
    "mysql": {"password": f"{SEED}-0"},
    "endpoint": {
        "baseurl": f"https://u:{SEED}-1@h/",
        "secrets": f"whsec_{SEED}{'A' * 30}",
        "auth": "bearer",
        "authSecret": f"{SEED}-2",
        "proxy": f"http://u:{SEED}-3@p:1",
    },
    "alerts": {
        "url": f"http://h/{SEED}-4",
        "heartbeatUrl": f"http://h/?{SEED}-5",
        "secrets": f"whsec_{SEED}{'B' * 30}",
    },
    "tokens": {"ci": f"read dalga_{SEED} {DIGEST}"},
    "endpoint.headers": {"X-Key": f"{SEED}-6", "Authorization": f"Bearer {SEED}-7"},
}

#: Mistakes that people make: what becomes of a key and its value.
SLIPS = st.sampled_from(
    [
        lambda key, text: (key, text),
        lambda key, text: (key, ""),
        lambda key, text: (key, f"{text} # old"),
        lambda key, text: (key, f'"{text}'),
        lambda key, text: (key, f"{text}\x01"),
        lambda key, text: (key, f"{text}ş"),
        lambda key, text: (key, text.replace("@", "/")),
        lambda key, text: (key, text.replace(":", " ")),
        lambda key, text: (key, f"{text},{text}x"),
        lambda key, text: (f"{key}File", text),
        lambda key, text: (f"{key}s", text),
        lambda key, text: (key[:-1], text),
        lambda key, text: (key.upper(), text),
        lambda key, text: (f"{key}: {text}", "x"),
        lambda key, text: (f"{key}:{text}", ""),
        lambda key, text: (f"{key}_file", text),
    ]
)


class SeedTests(ConfigTestCase):
    """P12: no secret is in a sentence on a mistake, in a traceback, or in what is shown."""

    def shown(self, path: str | None, variables: dict[str, str]) -> str:
        """:return: all that is shown of a configuration, or of its mistakes."""
        try:
            config = load_config(path, variables)
        except ConfigError as error:
            return "\n".join((repr(error), *traceback.format_exception(error)))
        return "\n".join((repr(config), *config.notes, *lines_of(config)))

    @thorough(300)
    @given(st.data())
    def test_mistakes(self, data: st.DataObject) -> None:
        sections: dict[str, dict[str, Given]] = {}
        variables: dict[str, str] = {}
        for section, keys in SEEDED.items():
            chosen = data.draw(st.lists(st.sampled_from([*keys]), unique=True))
            for name in chosen:
                key, text = data.draw(SLIPS)(name, keys[name])
                if data.draw(st.booleans()):
                    heading = data.draw(st.sampled_from([section, section, section[:-1]]))
                    sections.setdefault(heading, {})[key] = (data.draw(st.booleans()), text)
                else:
                    variables[as_variable(section.replace(".", "_"), key)] = text
        for ending, render in FORMATS[:3]:
            self.ending = ending
            self.assertNotIn(SEED, self.shown(self.write(render(sections)), variables))

    def test_taken(self) -> None:
        """The configuration without a slip is taken; else the property would be about little."""
        sections: dict[str, dict[str, Any]] = {
            section: {key: (False, text) for key, text in keys.items()}
            for section, keys in SEEDED.items()
        }
        sections["tokens"] = {"ci": (False, f"read {DIGEST}")}
        del sections["endpoint"]["auth"], sections["endpoint"]["authSecret"]
        sections["endpoint"]["baseurl"] = (False, "http://h/")
        path = self.write(FORMATS[0][1](sections))
        self.assertIsInstance(load_config(path, {}), Config)
        self.assertNotIn(SEED, self.shown(path, {}))
