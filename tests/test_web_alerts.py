"""The list of alerts: its query, and its JSON."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.alert import AlertState, KeptAlert
from dalga.web.alerts import MOST, SHOWN, alert_list, alerts_json
from tests.examples import NOW


class ListTests(SynchronousTestCase):
    def test_how_many(self) -> None:
        for query, limit in [("", SHOWN), ("limit=1", 1), ("limit=100", MOST)]:
            self.assertEqual(alert_list(query.encode()), limit)

    def test_refused(self) -> None:
        for query, words in [
            ("limit=0", "limit is '0': it takes a whole number from 1 to 100"),
            ("limit=101", "limit is '101': it takes a whole number from 1 to 100"),
            ("limit=1&limit=1", "limit is given twice"),
            ("event=x", "there is no parameter 'event': a list of alerts takes limit"),
        ]:
            error = self.assertRaises(InvalidRequest, alert_list, query.encode())
            self.assertIn(words, str(error))

    def test_json(self) -> None:
        alerts = [
            KeptAlert({"id": "0a", "event": "x"}, "ops", AlertState.SENT, 2, NOW, None),
            KeptAlert({}, "default", AlertState.WAITING, 0, None, "it answered 500"),
        ]
        first = {"id": "0a", "event": "x", "target": "ops", "state": "sent", "send_attempts": 2}
        first |= {"sent_at": "2014-11-11T22:10:40Z", "send_error": None}
        second = {"target": "default", "state": "waiting", "send_attempts": 0, "sent_at": None}
        second |= {"send_error": "it answered 500"}
        self.assertEqual(json.loads(alerts_json(alerts)), {"alerts": [first, second]})
