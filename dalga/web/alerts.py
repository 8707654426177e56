"""
The list of the newest alerts: its query -> how many, and alerts -> JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dalga.model.alert import Event, KeptAlert, concerns
from dalga.model.reading import Reader, of_text, whole
from dalga.model.schedule import exact_timestamp
from dalga.web.bodies import form_pairs
from dalga.web.presentation import HasSecrets, all_secrets, as_json
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


def alerts_json(alerts: Iterable[KeptAlert], has_secrets: HasSecrets = all_secrets) -> bytes:
    """The alerts as they are sent, each with what has become of it."""
    return as_json({"alerts": [_shown(alert, has_secrets) for alert in alerts]})


def _shown(alert: KeptAlert, has_secrets: HasSecrets) -> dict[str, Any]:
    members = alert.members
    path, endpoint = concerns(members)
    if members.get("event") == Event.JOB_PROBLEM and not has_secrets(path or "", endpoint):
        hidden = ["message", "error"]  # they may quote the job's row
        members = {**members, **dict.fromkeys(hidden), "hidden": hidden}
    return {
        **members,
        "target": alert.target,
        "state": str(alert.state),
        "send_attempts": alert.attempts,
        "sent_at": None if alert.sent is None else exact_timestamp(alert.sent),
        "send_error": alert.error,
    }
