"""What instances say of themselves."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.instance import UNKNOWN, About, about_from_text, about_text

ALL = About("1.2.0", 100, 12, -0.0007, 0.0021)


class AboutTests(SynchronousTestCase):
    """The JSON of a heartbeat."""

    def test_written_and_read(self) -> None:
        text = (
            '{"version":"1.2.0","slots":100,"running":12,"clock_offset":-0.0007,"latency":0.0021}'
        )
        self.assertEqual(about_text(ALL), text)
        for about in (ALL, UNKNOWN, About(slots=0, latency=0.0)):
            self.assertEqual(about_from_text(about_text(about)), about)
        self.assertEqual(about_text(About(latency=1 / 3)), '{"latency":0.333333}')

    def test_what_is_not_understood(self) -> None:
        """P6: it is left out."""
        for text, expected in (
            ("", UNKNOWN),
            ("{", UNKNOWN),
            ("[" * 100_000, UNKNOWN),
            ("[1]", UNKNOWN),
            ('{"version": 5, "slots": "many", "running": 3}', About(running=3)),
            ('{"slots": true, "latency": 1e999, "clock_offset": 1}', About(clock_offset=1)),
            ('{"version": "%s"}' % ("9" * 1000), UNKNOWN),
            ('{"version": "9", "mood": "good"}', About("9")),
        ):
            self.assertEqual(about_from_text(text), expected, text[:40])
