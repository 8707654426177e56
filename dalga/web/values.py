"""
Names and values as they were given -> values as their readers read them, or all mistakes at once.
Pure.

The sentence of a mistake names the parameter, what was given and what would do.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dalga.errors import MOST_MISTAKES, SHOWN, InvalidRequest, all_of, shown
from dalga.model.reading import Reader, Value, as_text


class ShownOnly(NamedTuple):
    """The names of a job's state: GET shows them, and a request does not take them."""

    names: frozenset[str]
    #: What the request does not do with them, such as "set by PUT".
    not_done: str
    #: The end of the sentence, after "leave them out".
    instead: str

    def refusal(self, given: Collection[str]) -> str:
        """The sentence on all names that were given, so that a client finds them out at once."""
        verb, them = ("are", "them") if len(given) > 1 else ("is", "it")
        return (
            f"{', '.join(map(shown, given))} {verb} shown by GET and not {self.not_done}: "
            f"leave {them} out{self.instead}"
        )


def read_values(
    given: Iterable[tuple[str, Value]],
    readers: Mapping[str, Reader],
    takes: str,
    shown_only: ShownOnly | None = None,
    from_query: int = 0,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """
    Read each parameter that was given.

    :param from_query: how many of them, the first ones, are no members of a body. A mistake of such
        a parameter has no JSON pointer.
    :param takes: the words before the list of all parameters, in the sentence on an unknown one.
    :param shown_only: the names of a job's state, for the sentence on these.
    :param elsewhere: by the names of parameters that other requests take, words for the sentence on
        an unknown parameter: how that parameter is given.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values: dict[str, _Given] = {}
    mistakes: list[InvalidRequest] = []
    states: dict[str, _Given] = {}
    of_state = 0  # the place of the sentence on them among the mistakes
    for place, (spelled, value) in enumerate(given):
        one = _Given(spelled, value, place >= from_query)
        name = spelled.replace("_", "-")
        if len(mistakes) >= MOST_MISTAKES:
            break
        if name in readers and name not in values:
            values[name] = one
        elif name in readers:
            twice = _as(name, values[name].value, value)
            mistakes.append(one.mistake(f"{name} is given twice{twice}: give it once"))
        elif shown_only is None or name not in shown_only.names:
            mistakes.append(
                one.mistake(
                    f"there is no parameter {shown(spelled)}"
                    f"{_guess(spelled, readers, elsewhere)}: {takes} {', '.join(readers)}"
                )
            )
        else:
            of_state = of_state if states else len(mistakes)
            states.setdefault(spelled, one)
    if shown_only is not None and states:
        sentence = shown_only.refusal(states)
        mistakes.insert(of_state, all_of([one.mistake(sentence) for one in states.values()]))
    read: dict[str, Any] = {}
    for name, one in values.items():
        try:
            read[name] = readers[name](name, one.value)
        except InvalidRequest as mistake:
            mistakes.append(one.of(mistake))
    if mistakes:
        raise all_of(mistakes)
    return read


class _Given(NamedTuple):
    """A parameter as it was given."""

    spelled: str
    value: Value
    #: Whether it is a member of a JSON body, so that a pointer can name it.
    is_member: bool

    def mistake(self, sentence: str) -> InvalidRequest:
        return self.of(InvalidRequest(sentence))

    def of(self, mistake: InvalidRequest) -> InvalidRequest:
        """The mistake of a value, as one of the whole request."""
        if not self.is_member:
            return InvalidRequest(str(mistake))
        return mistake.within(self.spelled)


def _as(name: str, before: Value, value: Value) -> str:
    """The two values of a parameter that is given twice, unless they may be secrets."""
    if name in _SECRET and (isinstance(before, str) or isinstance(value, str)):
        return ""
    return f", as {shown(as_text(before))} and as {shown(as_text(value))}"


#: Parameters whose values no sentence repeats.
_SECRET = frozenset({"payload", "payload-base64", "headers"})


def _guess(name: str, readers: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    """What may have been meant by an unknown name, in brackets; empty if nothing is like it."""
    if name.startswith("{"):
        return " (JSON needs the header Content-Type: application/json)"
    spelled = name[:SHOWN].lower().replace("_", "-")
    if spelled in elsewhere:
        return f" ({elsewhere[spelled]})"
    readers = list(readers)
    if MEANT.get(spelled) in readers:
        return f" (did you mean {MEANT[spelled]}?)"
    close = difflib.get_close_matches(spelled, readers, n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


#: Other programs' names for some parameters, if their letters are too unlike ours to tell.
MEANT: Mapping[str, str] = {
    "at": "first-run",
    "delay": "interval",
    "end": "until",
    "first-run": "at",
    "interval": "delay",
    "every": "interval",
    "now": "immediate",
    "once": "one-off",
    "repeat": "count",
    "start": "first-run",
    "time-zone": "location",
    "times": "count",
    "timezone": "location",
    "tz": "location",
}
