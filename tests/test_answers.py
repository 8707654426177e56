"""Sets of statuses: as text, and what a status in one of them means for a run."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import MAX_RANGES, Answers, Meaning, Statuses, statuses_from_text
from dalga.model.options import Options


class TextTests(SynchronousTestCase):
    """Text -> a set -> the normal form of the text."""

    def test_read(self) -> None:
        for text, ranges, normal in (
            ("200", ((200, 200),), "200"),
            ("200-299", ((200, 299),), "200-299"),
            ("200,202", ((200, 200), (202, 202)), "200,202"),
            (" 202 ,\t200 ", ((200, 200), (202, 202)), "200,202"),
            ("200 - 299", ((200, 299),), "200-299"),
            ("200,201", ((200, 201),), "200-201"),
            ("250-400,200-299,404", ((200, 400), (404, 404)), "200-400,404"),
            ("200-599,300", ((200, 599),), "200-599"),
            ("204-204,204", ((204, 204),), "204"),
            ("none", (), "none"),
            (" None", (), "none"),
        ):
            found = statuses_from_text(text)
            self.assertEqual(found, Statuses(ranges), text)
            self.assertEqual(str(found), normal)
            self.assertEqual(statuses_from_text(normal), found)

    def test_a_set_has_the_ends_of_its_ranges(self) -> None:
        found = statuses_from_text("200-202,404")
        self.assertEqual(list(found), [200, 201, 202, 404])
        self.assertEqual([each for each in range(190, 600) if each in found], list(found))

    def test_refused(self) -> None:
        range_of = "which is no status of a final answer (200 to 599)"
        for text, why in (
            ("", "has '', which is no status"),
            ("200,", "has '', which is no status"),
            ("ok", "has 'ok', which is no status"),
            ("2xx", "has '2xx', which is no status (2xx is 200-299)"),
            ("20", "has '20', which is no status"),
            ("2000", "has '2000', which is no status"),
            ("-200", "has '-200', which is no status"),
            ("200-", "has '200-', which is no status"),
            ("200 202", "has '200 202', which is no status"),
            ("200.0", "has '200.0', which is no status"),
            ("\u0662\u0660\u0660", "has '\u0662\u0660\u0660', which is no status"),
            ("100", f"has 100, {range_of}"),
            ("199-204", f"has 199, {range_of}"),
            ("200-600", f"has 600, {range_of}"),
            ("299-200", "has '299-200', whose end is before its start"),
            ("200,none", "has 'none', which is no status"),
            ("9" * 1000, f"has '{'9' * 39}\u2026', which is no status"),
            (",".join(["200"] * 17), "has 17 statuses and ranges, and may have 16 at most"),
        ):
            error = self.assertRaises(ValueError, statuses_from_text, text)
            self.assertEqual(str(error), why)
        self.assertRaises(ValueError, statuses_from_text, "none", or_none=False)

    def test_the_longest_sets_fit_into_their_column(self) -> None:
        """Three of them leave half of the 1024 characters of the column ``options``."""
        longest = ",".join(f"{each}-{each + 1}" for each in range(200, 600, 20)[:MAX_RANGES])
        self.assertEqual(str(statuses_from_text(longest)), longest)
        self.assertLess(3 * len(longest), 512)


class MeaningTests(SynchronousTestCase):
    """The sets of an endpoint, and those of a job in their place."""

    def test_in_several_sets(self) -> None:
        """Gone goes before success, and success before give-up, whoever says so."""
        of = statuses_from_text
        everything = Answers(success=of("200-299"), gone=of("204,410"), give_up=of("400-499"))
        same = Options(success=of("200-299"), gone=of("204,410"), give_up=of("400-499"))
        for answers, own in ((everything, Options()), (Answers(), same)):
            for status, meaning in (
                (199, Meaning.RETRY),
                (200, Meaning.SUCCEED),
                (204, Meaning.REMOVE),
                (299, Meaning.SUCCEED),
                (300, Meaning.RETRY),
                (404, Meaning.FAIL),
                (410, Meaning.REMOVE),
                (500, Meaning.RETRY),
                (799, Meaning.RETRY),
            ):
                self.assertEqual(answers.meaning(status, own), meaning, status)
        self.assertEqual(
            everything.meaning(404, Options(success=of("404"))),
            Meaning.SUCCEED,
        )

    def test_without_a_word_the_original_holds(self) -> None:
        """200 is success, 204 removes the job, and anything else is tried again."""
        meanings = {each: Answers().meaning(each, Options()) for each in range(200, 1000)}
        self.assertEqual(meanings.pop(200), Meaning.SUCCEED)
        self.assertEqual(meanings.pop(204), Meaning.REMOVE)
        self.assertEqual(set(meanings.values()), {Meaning.RETRY})
