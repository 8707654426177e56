"""The fault bench's checker objects to an incident that is told twice, or to nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from faults.alerted import FAILING, RECOVERED, check_alerts
from faults.history import Alert, Post
from tests.test_faults_checker import BOUNDS, KEY, T, history, post


def attempts(statuses: str, start: float = T, pause: float = 1.0) -> list[Post]:
    """Attempts of runs, each a letter: + for a success, - for a failure."""
    found, run, number = [], 0, 0
    for count, letter in enumerate(statuses):
        number += 1
        status = 200 if letter == "+" else 500
        at = start + count * pause
        found.append(post(T + run, at, run=f"run-{run}", attempt=number, status=status))
        if status == 200:
            run, number = run + 1, 0
    return found


def alert(event: str, made: float, **other: Any) -> Alert:
    given: dict[str, Any] = {"id": f"{event}-{made}", "key": KEY, "delivered": made + 0.1}
    return Alert(event=event, made=made, **given | other)


class AlertTests(SynchronousTestCase):
    def found(self, *what: Any) -> list[str]:
        told = history(*[one for one in what if isinstance(one, Post)])
        told.alerts = [one for one in what if isinstance(one, Alert)]
        told.alert_after = 3
        return [str(one) for one in check_alerts(told, BOUNDS)]

    def well(self, *what: Any) -> None:
        self.assertEqual(self.found(*what), [])

    def wrong(self, words: str, *what: Any) -> None:
        found = self.found(*what)
        self.assertEqual(len(found), 1, found)
        self.assertIn(words, found[0])

    def test_once(self) -> None:
        """An incident is told once, and its end once."""
        posts = attempts("+----+-+--+")
        failing, recovered = alert(FAILING, T + 3), alert(RECOVERED, T + 5)
        self.well(*posts, failing, recovered)
        self.assertIn("0 alerts job.failing", self.found(*posts, recovered)[0])
        self.wrong("0 alerts job.recovered, for 1 to 1", *posts, failing)
        for twice in (failing, recovered):
            found = self.found(*posts, failing, recovered, replace(twice, id="again", made=T + 7))
            self.assertIn(f"2 alerts {twice.event}", found[0])

    def test_delivered_twice(self) -> None:
        """The same id is the same alert."""
        posts = attempts("---+")
        failing, recovered = alert(FAILING, T + 3), alert(RECOVERED, T + 4)
        self.well(*posts, failing, replace(failing, delivered=T + 9), recovered)
        self.assertIn(
            "is of two events", self.found(*posts, failing, replace(recovered, id=failing.id))[0]
        )

    def test_order(self) -> None:
        """Recovered comes after failing, and is delivered after it."""
        posts = attempts("---+")
        failing, recovered = alert(FAILING, T + 3), alert(RECOVERED, T + 4)
        again = replace(failing, delivered=T + 20)
        self.well(*posts, again, recovered, failing)
        self.wrong("came before job.failing", *posts, recovered, again)
        early = self.found(*posts, failing, replace(recovered, made=T + 2))
        self.assertIn("does not come after the other", " ".join(early))

    def test_no_incident(self) -> None:
        self.well()
        self.wrong("1 alerts job.failing, for 0 to 0", alert(FAILING, T + 5))
        self.well(*attempts("+--+--+"))
        self.wrong("1 alerts job.failing, for 0 to 0", *attempts("--+--"), alert(FAILING, T + 5))
        self.assertIn("job.recovered", self.found(*attempts("--+"), alert(RECOVERED, T + 3))[0])

    def test_two_incidents(self) -> None:
        posts = attempts("---+---+---")
        told = [alert(FAILING, T + 3), alert(RECOVERED, T + 3.1)]
        told += [alert(FAILING, T + 7), alert(RECOVERED, T + 7.1)]
        self.well(*posts, *told)  # nobody knows whether the last attempt was recorded
        self.well(*posts, *told, alert(FAILING, T + 11))
        self.wrong("2 alerts job.failing, for 3 to 3", *posts, *attempts("-", T + 11), *told)

    def test_not_recorded(self) -> None:
        """What nobody has recorded may count or not."""
        posts = [*attempts("--"), post(T, T + 2, run="run-0", attempt=3, status=500)]
        posts.append(post(T, T + 16, run="run-0", attempt=4))
        self.well(*posts)
        self.well(*posts, alert(FAILING, T + 3), alert(RECOVERED, T + 17))
        self.wrong("0 alerts job.recovered", *attempts("---"), *posts[2:], alert(FAILING, T + 3))
        # A success that is POSTed again ends no incident.
        again = [*attempts("---+"), post(T, T + 17, run="run-0", attempt=5)]
        self.well(*again, alert(FAILING, T + 3), alert(RECOVERED, T + 18))
        self.wrong("0 alerts job.recovered", *again, alert(FAILING, T + 3))

    def test_nobody_is_told(self) -> None:
        self.assertEqual(check_alerts(history(*attempts("----")), BOUNDS), [])
