"""
Whether the audit list tells what was changed (P13): a pure function over what the client said with
its token, and the entries that are left at the end.

A PUT or a trigger that was acknowledged has one entry. One of which nobody knows what became of it
has one, or none. So a job has at least as many entries as words that were acknowledged, and at most
as many as words. To disable, enable, amend or delete a job may change nothing, and then has no
entry: of these only the most is known.

A database that loses what it had committed loses entries with it.
"""

from __future__ import annotations

from collections import Counter

from faults.checker import Bounds, Violation
from faults.history import History, Key, Verb

#: How the audit list names what a client can say of a job.
NAMES = {verb: str(verb) for verb in Verb} | {Verb.AMEND: "patch"}

#: The words that always change a job, unless they are refused.
CHANGING = (Verb.PUT, Verb.TRIGGER)


def check_entries(history: History, bounds: Bounds) -> list[Violation]:
    """All violations. None where the client had no token."""
    if history.entries is None:
        return []
    found = Counter((entry.key, entry.verb) for entry in history.entries)
    least: Counter[tuple[Key, str]] = Counter()
    most: Counter[tuple[Key, str]] = Counter()
    for word in history.said:
        if word.refused is not None or word.by_sql:
            continue
        about = word.key, NAMES[word.verb]
        most[about] += 1
        if word.verb in CHANGING and word.answered is not None:
            least[about] += 1
    if any(fault.loses for fault in history.faults):
        least.clear()
    return [
        Violation(
            "P13",
            key,
            f"{found[key, verb]} entries of {verb} in the audit list, for {least[key, verb]} to "
            f"{number} that were asked for",
        )
        for (key, verb), number in sorted(most.items())
        if not least[key, verb] <= found[key, verb] <= number
    ]
