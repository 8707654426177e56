"""
The list of the newest alerts: its query -> how many, and alerts -> JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dalga.model.alert import KeptAlert
from dalga.model.reading import Reader, of_text, whole
from dalga.model.schedule import exact_timestamp
from dalga.web.bodies import form_pairs
from dalga.web.presentation import as_json
from dalga.web.values import read_values

#: Alerts that a list shows by default, and at most.
SHOWN = 20
MOST = 100


@of_text
def _limit(name: str, value: str) -> int:
    return whole(name, value, 1, MOST, f"it takes a whole number from 1 to {MOST}")


_PARAMETERS: Mapping[str, Reader] = MappingProxyType({"limit": _limit})


def alert_list(query: bytes) -> int:
    """
    How many alerts a GET of alerts asks for.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    limit: int = read_values(form_pairs(query), _PARAMETERS, "a list of alerts takes").get(
        "limit", SHOWN
    )
    return limit


def alerts_json(alerts: Iterable[KeptAlert]) -> bytes:
    """The alerts as they are sent, each with what has become of it."""
    return as_json({"alerts": [_shown(alert) for alert in alerts]})


def _shown(alert: KeptAlert) -> dict[str, Any]:
    return {
        **alert.members,
        "target": alert.target,
        "state": str(alert.state),
        "send_attempts": alert.attempts,
        "sent_at": None if alert.sent is None else exact_timestamp(alert.sent),
        "send_error": alert.error,
    }
