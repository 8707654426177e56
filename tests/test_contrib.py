"""
contrib/: the alert rules and the dashboard, held against the metrics that there are, and against
promtool. docs/runbook.md has a section for each rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from dalga.metrics import FAMILIES, Family, Kind
from tests.servers.prometheus import promtool
from tests.test_docs import anchors

ROOT = Path(__file__).parent.parent
RULES = ROOT / "contrib" / "alert-rules.yml"
RULE_TESTS = ROOT / "tests" / "alert_rules_test.yml"
DASHBOARD = ROOT / "contrib" / "grafana-dashboard.json"

#: Labels that a metric has from Prometheus, from a histogram, or from a daemon with workers.
GIVEN_LABELS = {"job", "instance", "le", "worker"}


def series_of(family: Family) -> list[str]:
    """The names under which Prometheus has a family."""
    if family.kind is Kind.HISTOGRAM:
        return [f"{family.name}_{end}" for end in ("bucket", "sum", "count")]
    return [family.name]


SERIES = {name: family for family in FAMILIES for name in series_of(family)}


def problems(query: str) -> Iterator[str]:
    """What a query asks for that is not there."""
    for name, matchers in re.findall(r"\b(dalga_\w+)(?:\{([^}]*)\})?", query):
        if name not in SERIES:
            yield f"there is no {name}"
            continue
        labels = {*SERIES[name].labels, *GIVEN_LABELS}
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if label not in labels:
                yield f"{name} has no label {label}"
    known = {label for family in FAMILIES for label in family.labels} | GIVEN_LABELS
    for by in re.findall(r"\bby \(([^)]*)\)", query):
        for label in re.split(r"[\s,]+", by.strip()):
            if label not in known:
                yield f"nothing has a label {label}"


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Each panel of the dashboard and each of its queries."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


class QueryTests(SynchronousTestCase):
    """`problems`: a name that is not there is found."""

    def test_found(self) -> None:
        for query, expected in [
            ("dalga_slots", []),
            ("dalga_slot", ["there is no dalga_slot"]),
            ("dalga_lateness_seconds", ["there is no dalga_lateness_seconds"]),
            ('dalga_runs_total{result="x", job="a"}', []),
            ('rate(dalga_runs_total{body=~"x"}[5m])', ["dalga_runs_total has no label body"]),
            ("sum by (job, boody) (dalga_slots)", ["nothing has a label boody"]),
        ]:
            self.assertEqual(list(problems(query)), expected, query)


class RuleTests(SynchronousTestCase):
    """contrib/alert-rules.yml"""

    def test_names(self) -> None:
        for rule in rules():
            self.assertEqual(list(problems(rule["expr"])), [], rule["alert"])

    def test_runbook(self) -> None:
        """Each leads to a section of its own, and each section is some rule's."""
        sections = anchors(ROOT / "docs" / "runbook.md")
        for rule in rules():
            page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            self.assertEqual(page, "docs/runbook.md")
            self.assertEqual(anchor, rule["alert"].lower())
            self.assertIn(anchor, sections)
        self.assertEqual(sorted(sections[1:]), sorted(rule["alert"].lower() for rule in rules()))

    def test_promtool(self) -> None:
        status, said = promtool("check", "rules", str(RULES))
        self.assertEqual(status, 0, said)
        self.assertIn(f"SUCCESS: {len(rules())} rules found", said)

    def test_each(self) -> None:
        """In some case it fires, with its labels and its summary; in another it does not."""
        fires: set[str] = set()
        quiet: set[str] = set()
        for test in yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else quiet).add(case["alertname"])
        names = {rule["alert"] for rule in rules()}
        self.assertEqual((fires, quiet), (names, names))
        status, said = self.run_tests(RULES.read_text(encoding="utf-8"))
        self.assertEqual(status, 0, said)

    def test_a_rule_that_is_wrong(self) -> None:
        """Each limit counts: a test fails where it is another."""
        text = RULES.read_text(encoding="utf-8")
        for right, wrong in [("> 0.2", "> 0.3"), ("> 60", "> 130"), ("0.95", "0.85")]:
            self.assertIn(right, text)
            status, said = self.run_tests(text.replace(right, wrong))
            self.assertNotEqual(status, 0, said)

    def run_tests(self, text: str) -> tuple[int, str]:
        """Have promtool test the rules, without what has no place in its tests."""
        kept = re.sub(r"^ +(description|runbook_url): .*\n", "", text, flags=re.MULTILINE)
        with TemporaryDirectory(prefix="dalga-rules-") as name:
            folder = Path(name)
            (folder / RULES.name).write_text(kept, encoding="utf-8")
            (folder / RULE_TESTS.name).write_text(RULE_TESTS.read_text(encoding="utf-8"))
            return promtool("test", "rules", RULE_TESTS.name, cwd=folder)


class DashboardTests(SynchronousTestCase):
    """contrib/grafana-dashboard.json"""

    def test_names(self) -> None:
        for title, query in queries():
            self.assertEqual(list(problems(query)), [], title)

    def test_nothing_is_left_out(self) -> None:
        """Each metric is in some panel."""
        asked = {name for _, query in queries() for name in re.findall(r"\bdalga_\w+", query)}
        unseen = [family.name for family in FAMILIES if not asked.intersection(series_of(family))]
        self.assertEqual(unseen, [])

    def test_nothing_fails(self) -> None:
        """The share of attempts that fail is 0 then, and not unknown."""
        (query,) = (query for title, query in queries() if title == "Attempts that fail")
        query = re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m"))
        labels = 'job="dalga",instance="web1",endpoint="default",code_class="2xx",error_kind=""'
        case = {
            "interval": "1m",
            "input_series": [
                {"series": f"dalga_attempts_total{{{labels}}}", "values": "0+60x10"},
            ],
            "promql_expr_test": [
                {"expr": query, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 0}]}
            ],
        }
        with TemporaryDirectory(prefix="dalga-panels-") as name:
            (Path(name) / "test.yml").write_text(yaml.safe_dump({"tests": [case]}))
            status, said = promtool("test", "rules", "test.yml", cwd=Path(name))
        self.assertEqual(status, 0, said)

    def test_panels(self) -> None:
        """They have their data from the source that is chosen, and lie side by side."""
        dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        ids: set[int] = set()
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            ids.add(panel["id"])
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
            for target in panel.get("targets", []):
                self.assertEqual(target["datasource"]["uid"], "${datasource}")
        self.assertEqual(len(ids), len(dashboard["panels"]))
