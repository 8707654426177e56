"""The fault bench's checker objects to a change that has no entry in the audit list, or two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from faults.audited import check_entries
from faults.history import Entry, Fault, Said, Verb
from tests.test_faults_checker import BOUNDS, KEY, T, history

WORDS = {verb: Said(KEY, verb, T, T + 0.1) for verb in Verb}


class EntryTests(SynchronousTestCase):
    def found(self, words: list[Said], *verbs: str, faults: Any = ()) -> list[str]:
        told = history(*words)
        told.faults = list(faults)
        told.entries = [Entry(KEY, verb) for verb in verbs]
        return [str(one) for one in check_entries(told, BOUNDS)]

    def test_what_was_acknowledged(self) -> None:
        """A PUT and a trigger have an entry each; other words may have changed nothing."""
        for verb, name in {"put": "put", "trigger": "trigger", "amend": "patch"}.items():
            word = WORDS[Verb(verb)]
            self.assertEqual(self.found([word], name), [])
            self.assertEqual(self.found([word, word], name, name), [])
            (wrong,) = self.found([word], name, name)
            self.assertIn(f"P13: {KEY[0]}/{KEY[1]}: 2 entries of {name}", wrong)
            self.assertEqual(bool(self.found([word])), verb != "amend")

    def test_what_nobody_knows(self) -> None:
        """A word without an answer has an entry, or none; one that was refused has none."""
        unknown = replace(WORDS[Verb.PUT], answered=None)
        for entries in ([], ["put"]):
            self.assertEqual(self.found([unknown], *entries), [])
        self.assertTrue(self.found([unknown], "put", "put"))
        self.assertTrue(self.found([unknown, WORDS[Verb.PUT]]))
        refused = replace(WORDS[Verb.TRIGGER], refused=409)
        self.assertEqual(self.found([refused]), [])
        past_all = replace(WORDS[Verb.PUT], by_sql=True)
        self.assertEqual(self.found([past_all]), [])

    def test_a_database_that_loses_what_it_had(self) -> None:
        fault = Fault("cut", T, T + 1, loses=True)
        self.assertEqual(self.found([WORDS[Verb.PUT]], faults=[fault]), [])
        self.assertTrue(self.found([WORDS[Verb.PUT]], "put", "put", faults=[fault]))

    def test_without_a_token(self) -> None:
        told = history(WORDS[Verb.PUT])
        self.assertEqual(check_entries(told, BOUNDS), [])
