"""The numbers as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from dalga.exposition import Shown, text
from dalga.metrics import FAMILIES, Counts, Family, Kind, Metrics, Numbers


def a_number(family: Family) -> float | Counts:
    if family.kind is Kind.HISTOGRAM:
        return Counts([1] * (len(family.bounds) + 1), 2.5)
    return 3


def everything(own: str = "x") -> Numbers:
    """A number of each family."""
    return {family.name: {(own,) * len(family.labels): a_number(family)} for family in FAMILIES}


class TextTests(SynchronousTestCase):
    def lines(self, *shown: Shown, accept: str = "") -> list[str]:
        return text(shown, accept)[0].decode().splitlines()

    def test_each_family(self) -> None:
        """As it is in the table: with its name, its labels, its type and its words."""
        lines = self.lines(Shown(everything()))
        for family in FAMILIES:
            kind = Kind.GAUGE if family.kind is Kind.INFO else family.kind
            self.assertIn(f"# TYPE {family.name} {kind}", lines)
            self.assertIn(f"# HELP {family.name} {family.help}", lines)
            labels = ",".join(f'{label}="x"' for label in sorted(family.labels))
            braces = f"{{{labels}}}" if labels else ""
            if family.kind is Kind.HISTOGRAM:
                count = float(len(family.bounds) + 1)
                self.assertIn(f"{family.name}_count{braces} {count}", lines)
                self.assertIn(f"{family.name}_sum{braces} 2.5", lines)
            else:
                value = 1.0 if family.kind is Kind.INFO else 3.0
                self.assertIn(f"{family.name}{braces} {value}", lines)

    def test_buckets(self) -> None:
        """Each has the values of those before it, too."""
        numbers: Numbers = {"dalga_run_attempts": {(): Counts([5, 0, 2, 0, 0, 0, 0, 1], 30.0)}}
        lines = self.lines(Shown(numbers))
        self.assertIn('dalga_run_attempts_bucket{le="1.0"} 5.0', lines)
        self.assertIn('dalga_run_attempts_bucket{le="3.0"} 7.0', lines)
        self.assertIn('dalga_run_attempts_bucket{le="+Inf"} 8.0', lines)

    def test_what_is_not_known(self) -> None:
        """A family without a number is left out."""
        self.assertEqual(self.lines(Shown({"dalga_slots": {}})), [])
        self.assertNotIn("dalga_runs_total", "\n".join(self.lines(Shown(Metrics().numbers()))))

    def test_workers(self) -> None:
        """Those of each have its number, beside the labels of the family."""
        lines = self.lines(Shown(everything("a"), 1), Shown(everything("b"), 2))
        for line in (
            'dalga_runs_total{endpoint="a",path="a",result="a",worker="1"} 3.0',
            'dalga_runs_total{endpoint="b",path="b",result="b",worker="2"} 3.0',
            'dalga_slots{worker="2"} 3.0',
            'dalga_run_attempts_count{worker="1"} 8.0',
        ):
            self.assertIn(line, lines)
        (build,) = (line for line in lines if 'instance_id="b"' in line)
        self.assertIn('worker="2"', build)

    def test_odd_values(self) -> None:
        """A path may have any characters."""
        odd = 'a"b\\c\nd\u2028é'
        numbers: Numbers = {"dalga_runs_total": {("default", odd, "succeeded"): 1}}
        body, _ = text([Shown(numbers)], "")
        (family,) = text_string_to_metric_families(body.decode())
        self.assertEqual(family.samples[0].labels["path"], odd)

    def test_formats(self) -> None:
        """OpenMetrics for who asks for it; the older text for others, also for a browser."""
        numbers = everything()
        for accept, kind in [
            ("", "text/plain; version=0.0.4"),
            ("*/*", "text/plain; version=0.0.4"),
            ("text/html,application/xhtml+xml;q=0.9", "text/plain; version=0.0.4"),
            ("text/plain;version=0.0.4;q=0.5", "text/plain; version=0.0.4"),
            ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
            (
                "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5",
                "application/openmetrics-text",
            ),
            ('application/openmetrics-text;version="1.0.0"', "application/openmetrics-text"),
        ]:
            body, content_type = text([Shown(numbers)], accept)
            self.assertTrue(content_type.startswith(kind), (accept, content_type))
            ends = body.endswith(b"# EOF\n")
            self.assertEqual(ends, kind == "application/openmetrics-text", accept)

    def test_versions_that_are_none(self) -> None:
        """No scrape fails for them. Which format there is depends on the client's version."""
        for accept in (
            "application/openmetrics-text;version=one",
            "text/plain;version=1.x",
            "application/openmetrics-text;version=\xb2",
        ):
            body, content_type = text([Shown(everything())], accept)
            is_open = content_type.startswith("application/openmetrics-text")
            self.assertTrue(is_open or content_type.startswith("text/plain"), content_type)
            self.assertEqual(body.endswith(b"# EOF\n"), is_open, accept)
