"""What an instance counts, as plain numbers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.metrics import FAMILIES, OTHER, Counts, Kind, Metrics, PathLabels


class MetricsTests(SynchronousTestCase):
    """`Metrics`: what was counted is in the numbers."""

    def setUp(self) -> None:
        self.metrics = Metrics()

    def value(self, name: str, *labels: str) -> object:
        return self.metrics.numbers()[name][labels]

    def test_claims(self) -> None:
        self.metrics.claimed("taken", 40)
        self.metrics.claimed("taken", 2)
        self.metrics.claimed("empty")
        self.metrics.claimed("failed")
        self.assertEqual(self.value("dalga_claims_total", "taken"), 2)
        self.assertEqual(self.value("dalga_claims_total", "failed"), 1)
        size = self.value("dalga_claim_size")
        assert isinstance(size, Counts)
        self.assertEqual((sum(size.buckets), size.sum), (3, 42.0))

    def test_transactions(self) -> None:
        self.metrics.transaction("claim", "ok", 0.001)
        self.metrics.transaction("claim", "again", 7.0)
        self.assertEqual(self.value("dalga_db_up"), True)
        self.assertEqual(self.value("dalga_db_transactions_total", "claim", "ok"), 1)
        spread = self.value("dalga_db_transaction_duration_seconds", "claim")
        assert isinstance(spread, Counts)
        self.assertEqual(spread.buckets[0], 1)
        self.assertEqual(sum(spread.buckets), 2)
        self.assertAlmostEqual(spread.sum, 7.001)

    def test_database_is_up(self) -> None:
        """It goes by the last transaction that tells; before the first, nothing is known."""
        self.assertNotIn("dalga_db_up", self.metrics.numbers())
        for result, up in [
            ("unavailable", False),
            ("abandoned", False),
            ("again", False),
            ("ok", True),
            ("failed", True),
            ("unavailable", False),
            ("refused", True),
            ("unavailable", False),
            ("busy", True),
        ]:
            self.metrics.transaction("get", result, 0.0)
            self.assertEqual(self.value("dalga_db_up"), up, result)

    def test_requests(self) -> None:
        """A request that was refused before it was there has no duration."""
        self.metrics.request("/status", "GET", 200, 0.01)
        self.metrics.request("none", "GET", 400, None)
        self.assertEqual(self.value("dalga_http_requests_total", "none", "GET", "400"), 1)
        seconds = self.metrics.numbers()["dalga_http_request_duration_seconds"]
        self.assertEqual(list(seconds), [("/status", "GET")])

    def test_alerts(self) -> None:
        for result in ("failed", "sent", "sent"):
            self.metrics.alert("job.failing", result)
        found = self.metrics.numbers()["dalga_alerts_total"]
        self.assertEqual(found, {("job.failing", "failed"): 1, ("job.failing", "sent"): 2})

    def test_gauges(self) -> None:
        """A gauge is asked for each time; one that is not known yet is left out."""
        values: list[float | None] = [3.0, None]
        self.metrics.gauge("dalga_slots", lambda: values.pop(0))
        self.metrics.gauge("dalga_jobs", lambda: {("running",): 7.0})
        first, second = self.metrics.numbers(), self.metrics.numbers()
        self.assertEqual(first["dalga_slots"], {(): 3.0})
        self.assertEqual(first["dalga_jobs"], {("running",): 7.0})
        self.assertNotIn("dalga_slots", second)
        self.assertRaises(ValueError, self.metrics.gauge, "dalga_slot", lambda: 1.0)
        self.assertRaises(ValueError, self.metrics.gauge, "dalga_runs_total", lambda: 1.0)

    def test_numbers_stay(self) -> None:
        """What was given out does not change: it may be read in another thread."""
        self.metrics.claimed("taken", 1)
        before = self.metrics.numbers()
        self.metrics.claimed("taken", 1)
        self.assertEqual(before["dalga_claims_total"], {("taken",): 1})
        size = before["dalga_claim_size"][()]
        assert isinstance(size, Counts)
        self.assertEqual(sum(size.buckets), 1)

    def test_all_are_in_the_table(self) -> None:
        """With the labels, and the buckets, that the table says."""
        self.metrics.claimed("taken", 1)
        self.metrics.transaction("claim", "ok", 0.001)
        self.metrics.request("/status", "GET", 200, 0.01)
        self.metrics.alert("job.failing", "sent")
        self.metrics.source(lambda: {"dalga_runs_total": {("default", "p", "succeeded"): 1}})
        families = {family.name: family for family in FAMILIES}
        for name, values in self.metrics.numbers().items():
            for labels, value in values.items():
                self.assertEqual(len(labels), len(families[name].labels), name)
                if isinstance(value, Counts):
                    self.assertEqual(len(value.buckets), len(families[name].bounds) + 1, name)


class FamilyTests(SynchronousTestCase):
    """The table, by Prometheus's conventions."""

    def test_names(self) -> None:
        for family in FAMILIES:
            self.assertRegex(family.name, "^dalga_[a-z_]+$")
            self.assertEqual(family.name.endswith("_total"), family.kind is Kind.COUNTER)
            self.assertEqual(bool(family.bounds), family.kind is Kind.HISTOGRAM, family.name)
            self.assertEqual(list(family.bounds), sorted(family.bounds), family.name)
            self.assertTrue(family.help.endswith("."), family.name)
        names = [family.name for family in FAMILIES]
        self.assertEqual(len(names), len(set(names)))

    def test_no_body(self) -> None:
        """A job's body, and a run's id, are no labels: they would be without a bound (P10)."""
        labels = {label for family in FAMILIES for label in family.labels}
        self.assertFalse(labels & {"body", "run_id", "job"})


class PathLabelsTests(SynchronousTestCase):
    """`PathLabels`: so many paths, and then `other`."""

    def test_first_come(self) -> None:
        labels = PathLabels(2)
        self.assertEqual([labels.of(path) for path in "abcabd"], ["a", "b", OTHER, "a", "b", OTHER])

    def test_none(self) -> None:
        self.assertEqual(PathLabels(0).of("a"), OTHER)
