"""``dalga token``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from dalga.cli import main
from dalga.model.permit import Grant, Scope, Token, token_from_text
from dalga.privileges import User, acting_as
from dalga.tokens_cli import main as token_main
from dalga.tokens_cli import tokens_of
from dalga.web.auth import Tokens
from tests.test_privileges import NOBODY


def text_in(said: str) -> str:
    """The token that was shown."""
    [text] = [line for line in said.splitlines() if line.startswith("dalga_")]
    return text


class TokenTestCase(SynchronousTestCase):
    def token(self, *arguments: str) -> tuple[int, str, str]:
        """``dalga token`` with arguments: its exit status, and what it says on each output."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = token_main(arguments)
            except SystemExit as exit:
                status = int(exit.code or 0)
        return status, out.getvalue(), err.getvalue()


class NewTests(TokenTestCase):
    def new(self, *arguments: str) -> tuple[str, Token]:
        """The token, and what its line for [tokens] is read as."""
        status, out, err = self.token("new", *arguments)
        self.assertEqual((status, err), (0, ""))
        [line] = [line for line in out.splitlines() if " = " in line]
        name, _, rest = line.partition(" = ")
        return text_in(out), token_from_text(name, rest)

    def test_grants(self) -> None:
        """The line grants what was asked for, to the token that is shown, and not again."""
        write, read = Grant(Scope.WRITE, ("team/", "ü, "), ("billing",)), Grant(Scope.READ)
        for options, grants in [
            ("ci --scope read", (read,)),
            ("--scope read ci", (read,)),
            ("ci --scope=admin --scope=metrics", (Grant(Scope.ADMIN), Grant(Scope.METRICS))),
        ]:
            text, token = self.new(*options.split())
            self.assertEqual((token.name, token.grants), ("ci", grants))
            caller = Tokens([token]).caller([b"Bearer " + text.encode()])
            self.assertEqual((caller.name, caller.grants), ("ci", grants))
        limited = ("--scope", "write", "--prefix", "team/", "--endpoint=billing", "--prefix", "ü, ")
        _, token = self.new("ci", *limited, "--scope", "read")
        self.assertEqual(token.grants, (write, read))
        self.assertNotEqual(self.new("ci", "--scope=read")[0], self.new("ci", "--scope=read")[0])

    def test_refused(self) -> None:
        for options, expected in [
            ("", "new | first"),
            ("new", "NAME"),
            ("new ci", "--scope"),
            ("new Ci --scope read", "the name of a token takes lower case letters"),
            ("new file --scope read", "is not file"),
            ("new ci --scope reed", "it takes read, read-secrets,"),
            ("new ci --scope admin --prefix a", "the scope admin has no limits"),
            ("new ci --prefix a --scope read", "give --scope before it"),
            ("new ci --scope read --prefix=", "an empty prefix"),
            ("new ci --scope read --endpoint B", "takes the name of an endpoint"),
            ("new ci x --scope read", "x"),
            ("new ci --sco read", "--sco"),
            ("first", "FILE"),
        ]:
            status, out, err = self.token(*options.split())
            self.assertEqual((status, out), (2, ""), options)
            self.assertTrue(err.startswith("dalga: ") and expected in err, err)
            self.assertEqual(err.count("\n"), 1)

    def test_by_the_command(self) -> None:
        """``dalga token`` comes here before any option of the daemon is read."""
        out = StringIO()
        with redirect_stdout(out):
            self.assertEqual(main(["token", "new", "ci", "--scope", "read"]), 0)
        self.assertIn("\nci = read sha256:", out.getvalue())


class FirstTests(TokenTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def first(self) -> tuple[str, list[Token]]:
        """What is said, and the tokens of the file then."""
        status, out, err = self.token("first", str(self.path))
        self.assertEqual((status, err), (0, ""))
        return out, tokens_of("it", self.path.read_bytes())

    def test_a_new_file(self) -> None:
        """It is made for its owner alone, whatever the umask. A second start does nothing."""
        self.addCleanup(os.umask, os.umask(0))
        out, [token] = self.first()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual((token.name, token.grants), ("admin", (Grant(Scope.ADMIN),)))
        self.assertEqual(Tokens([token]).find(text_in(out).encode()), token)
        self.assertNotIn(text_in(out), self.path.read_text())
        before = self.path.read_bytes()
        out, _ = self.first()
        self.assertEqual(out, f"{self.path} has an admin token, admin: nothing was done\n")
        self.assertEqual(self.path.read_bytes(), before)

    def test_what_is_there_stays(self) -> None:
        """Other tokens and comments stay, and their names are not taken."""
        hexadecimal = "0" * 64
        for before in (
            f"# ours\n\nci = write:team/ sha256:{hexadecimal} ; for builds",
            f"admin = read sha256:{hexadecimal}\n",
            "",
            "; nothing yet\n",
        ):
            self.path.write_text(before)
            _, tokens = self.first()
            self.assertTrue(self.path.read_text().startswith(before))
            self.assertEqual(tokens[-1].grants, (Grant(Scope.ADMIN),))
            self.assertEqual(len({token.name for token in tokens}), len(tokens))

    def test_refused(self) -> None:
        """A file that is no file of tokens stays as it is, and nothing of it is repeated."""
        for content, expected in [
            (b"[tokens]\nci = secret\n", "give a file of tokens alone"),
            (b"\nci = secret\n", "line 2 is no token's: it has no sha256:"),
            (b"secret x\n", "line 1 is no token's: the name of a token takes"),
            (b"\xff\n", "not UTF-8"),
        ]:
            self.path.write_bytes(content)
            status, out, err = self.token("first", str(self.path))
            self.assertEqual((status, out), (1, ""))
            self.assertIn(expected, err)
            self.assertNotIn("secret", err.replace(str(self.path), ""))
            self.assertEqual(self.path.read_bytes(), content)

    def test_a_file_that_can_only_be_read(self) -> None:
        """As one of a Kubernetes Secret: with an admin token it is in order, else it is refused."""
        folder = Path(mkdtemp())
        self.addCleanup(FilePath(str(folder)).remove)
        folder.chmod(0o755)
        self.path = folder / "tokens"
        self.path.write_text("")
        self.first()
        self.path.chmod(0o444)
        with acting_as(User(NOBODY.pw_uid)):
            out, _ = self.first()
        self.assertEqual(out, f"{self.path} has an admin token, admin: nothing was done\n")
        for path in (self.path, folder / "none"):
            self.path.chmod(0o644)
            self.path.write_text(f"ci = read sha256:{'0' * 64}\n")
            self.path.chmod(0o444)
            with acting_as(User(NOBODY.pw_uid)):
                status, out, err = self.token("first", str(path))
            self.assertEqual((status, out), (1, ""))
            self.assertIn(f"{path} can't be used as a file of tokens: Permission denied", err)

    def test_a_token_that_nobody_sees(self) -> None:
        """Where the output is full, no token is made: it would be of use to nobody."""
        for arguments in (("first", str(self.path)), ("new", "ci", "--scope", "read")):
            err = StringIO()
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.suppress(OSError))  # its end writes once more
                full = stack.enter_context(open("/dev/full", "w"))
                with redirect_stdout(full), redirect_stderr(err):
                    self.assertEqual(token_main(arguments), 1)
            said = "dalga: the token can't be shown (No space left on device), so none was made\n"
            self.assertEqual(err.getvalue(), said)
        self.assertEqual(self.path.read_bytes(), b"")
        self.first()

    def test_no_such_folder(self) -> None:
        status, _, err = self.token("first", str(self.path / "x"))
        self.assertEqual(status, 1)
        self.assertIn("can't be used as a file of tokens: No such file or directory", err)

    def test_two_at_once(self) -> None:
        """
        Of two containers that start at once, one makes the token: the file is read once it is
        locked. Here the second comes, and is through, while the first waits for the lock.
        """
        said = []
        flock = fcntl.flock

        def wait(file: Any, operation: int) -> None:
            self.assertEqual(operation, fcntl.LOCK_EX)
            with patch("fcntl.flock", flock):
                said.append(self.first()[0])
            flock(file, operation)

        with patch("fcntl.flock", wait):
            said.append(self.first()[0])
        self.assertEqual(["nothing was done" in each for each in said], [False, True])
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
