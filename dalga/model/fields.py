"""
A job's parameters, in one table: how each is read, where a job has it, what GET shows of it, and
what the database keeps of it. Pure.

To add a parameter, add a row to `FIELDS`, and an attribute to the dataclass that its place names
(mostly `Chosen`). PUT, JSON bodies, GET, the column ``options`` and the details of a job go by the
table. What is still missing then, such as a line in docs/api.md, tests/test_fields.py and
tests/test_api_page.py say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Protocol

from dalga.errors import InvalidRequest
from dalga.model.delivery import (
    NO_NOTES,
    PAYLOAD,
    PLAIN,
    Delivery,
    Notes,
    Payload,
    PayloadKind,
)
from dalga.model.options import CatchUp, IfExists, OnEnd, OnFailure, Options
from dalga.model.reading import (
    MAX_JITTER,
    MAX_LATENESS,
    MAX_SILENCE,
    Reader,
    alert_url,
    boolean,
    count,
    cron,
    endpoint,
    instant_or_wall,
    interval,
    jitter,
    lateness,
    location,
    one_of,
    silence,
    statuses,
    success,
)
from dalga.model.reading_delivery import (
    MAX_TIMEOUT,
    RETRY_READERS,
    content_type,
    description,
    headers,
    method,
    payload,
    payload_base64,
    redact,
    retry,
    tags,
    timeout,
)
from dalga.model.schedule import Schedule, exact_timestamp
from dalga.model.writing import (
    CHOSEN,
    CONTENT_TYPE,
    COUNT,
    DESCRIPTION,
    DISABLING,
    DURATION,
    ENDPOINT,
    HEADERS,
    INSTANT,
    METHOD,
    PAYLOAD_OCTETS,
    PAYLOAD_TEXT,
    REDACT,
    RETRY,
    RUN_ID,
    STATUSES,
    SUCCESS,
    TAGS,
    TARGET,
    Column,
    Detail,
    Member,
    choice,
    elapsed,
    shown_base64,
    shown_cron,
    shown_interval,
    shown_payload,
    shown_retry,
    shown_seconds,
)
from dalga.model.zone import Gap, Overlap, Zone


class Terms(Protocol):
    """What a `Job` and a `Plan` both have: when the job runs, what it sends, and what else."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def options(self) -> Options: ...

    @property
    def delivery(self) -> Delivery: ...

    @property
    def notes(self) -> Notes: ...


class Field(NamedTuple):
    """A parameter of a job."""

    #: Its name for PUT, in the docs and in the column ``options``.
    name: str
    #: The text or JSON that was given -> the value. None if no PUT takes the parameter.
    read: Reader | None
    #: The attribute of `Terms` that has the value. Empty if a job does not keep the value.
    place: str = ""
    #: The value -> its JSON in the answer to a GET. None if GET does not show the parameter.
    show: Callable[[Any], object] | None = None
    #: How the database keeps the value. None if it does not.
    kept: Column | Member | Detail | None = None

    @property
    def attribute(self) -> str:
        """Its name in the JSON of a job, and that of its attribute of `RawRequest`."""
        return self.name.replace("-", "_")


#: In the order of the docs.
FIELDS = (
    # name, read by, place, shown by, kept as
    Field("interval", interval, "schedule", shown_interval, Column("schedule")),
    Field("cron", cron, "schedule", shown_cron, Column("schedule")),
    Field("location", location, "schedule.zone.location", str, Column("location")),
    Field("first-run", instant_or_wall, "options.first_run", None, INSTANT),
    Field("one-off", boolean, "schedule", None, Column("schedule")),
    Field("immediate", boolean),
    Field("until", instant_or_wall, "options.until", exact_timestamp, INSTANT),
    Field("count", count, "options.count", int, COUNT),
    Field("catch-up", one_of(CatchUp), "options.catch_up", str, choice(CatchUp)),
    Field(
        "max-lateness",
        lateness,
        "options.max_lateness",
        shown_seconds,
        elapsed("lateness", MAX_LATENESS),
    ),
    Field("on-failure", one_of(OnFailure), "options.on_failure", str, choice(OnFailure)),
    Field("jitter", jitter, "options.jitter", shown_seconds, elapsed("jitter", MAX_JITTER)),
    Field("success", success, "options.success", str, SUCCESS),
    Field("gone", statuses, "options.gone", str, STATUSES),
    Field("give-up", statuses, "options.give_up", str, STATUSES),
    # The interval of a one-off job: no parameter of its own.
    Field("delay", None, "options.delay", None, DURATION),
    Field("dst-gap", one_of(Gap), "schedule.zone.gap", str, choice(Gap)),
    Field("dst-overlap", one_of(Overlap), "schedule.zone.overlap", str, choice(Overlap)),
    Field("if-exists", one_of(IfExists)),
    Field("endpoint", endpoint, "options.endpoint", str, ENDPOINT),
    Field("payload", payload, "delivery.payload", shown_payload, PAYLOAD_TEXT),
    Field("payload-base64", payload_base64, "delivery.payload", shown_base64, PAYLOAD_OCTETS),
    Field("content-type", content_type, "delivery.content_type", str, CONTENT_TYPE),
    Field("headers", headers, "delivery.headers", dict, HEADERS),
    Field("method", method, "delivery.method", str, METHOD),
    Field("timeout", timeout, "options.timeout", shown_seconds, elapsed("time limit", MAX_TIMEOUT)),
    Field("retry", retry, "delivery.retry", shown_retry, RETRY),
    Field("tags", tags, "notes.tags", list, TAGS),
    Field("description", description, "notes.description", str, DESCRIPTION),
    Field("redact", redact, "delivery.redact", list, REDACT),
    Field("on-end", one_of(OnEnd), "options.on_end", str, choice(OnEnd)),
    Field("save-response", boolean, "options.save_response", bool, CHOSEN),
    # Of which run the job is a replay.
    Field("replay-of", None, "delivery.replay_of", str, RUN_ID),
    Field("alert-after", count, "options.alert_after", int, COUNT),
    Field(
        "expect-within",
        silence,
        "options.expect_within",
        shown_seconds,
        elapsed("silence", MAX_SILENCE),
    ),
    Field("alert-url", alert_url, "options.alert_url", str, TARGET),
    # Shown among a job's state.
    Field("disabled", None, "notes.disabled", None, DISABLING),
)


def readers_of(fields: Iterable[Field]) -> Mapping[str, Reader]:
    """The readers of the fields that a PUT takes, by name."""
    return MappingProxyType({field.name: field.read for field in fields if field.read is not None})


#: The readers of the parts of a job's retries where these stand alone, as in a form and a query, by
#: name; and their names in `Retry`.
RETRY_PARTS = MappingProxyType({f"retry-{name}": name.replace("-", "_") for name in RETRY_READERS})


def _with_retry_parts(readers: Mapping[str, Reader]) -> Iterator[tuple[str, Reader]]:
    for name, reader in readers.items():
        yield name, reader
        if name == "retry":
            for part, reader_of_part in RETRY_READERS.items():
                yield f"retry-{part}", reader_of_part


#: The readers of all parameters of a PUT, by name.
READERS: Mapping[str, Reader] = MappingProxyType(dict(_with_retry_parts(readers_of(FIELDS))))

#: A job of which nothing was chosen: it has no schedule yet, but a zone.
_NOTHING: Any = SimpleNamespace(
    schedule=SimpleNamespace(zone=Zone()), options=Options(), delivery=PLAIN, notes=NO_NOTES
)


def _in_terms(field: Field) -> tuple[Callable[[Terms], Any], object]:
    """What gets a field's value out of `Terms`, and the value that is neither shown nor kept."""
    get = attrgetter(field.place)
    return get, get(_NOTHING)


#: The name of each, what gets its value out of `Terms`, the value that is neither shown nor kept,
#: and the value -> its JSON.
_Parameters = tuple[tuple[str, Callable[[Terms], Any], object, Callable[[Any], Any]], ...]


def _shown(*owners: str) -> _Parameters:
    """The parameters that GET shows of some attributes of `Terms`, in the table's order."""
    return tuple(
        (field.attribute, *_in_terms(field), field.show)
        for field in FIELDS
        if field.show is not None and field.place.partition(".")[0] in owners
    )


#: The parameters that GET shows, in its order: first those of the schedule, then the options, and
#: then what most jobs have not.
_SHOWN = (*_shown("schedule"), *_shown("options"))
_SHOWN_BESIDE = _shown("delivery", "notes")


def _written(kind: type[Member] | type[Detail]) -> _Parameters:
    """The parameters that are kept so, with what writes them."""
    return tuple(
        (field.name, *_in_terms(field), field.kept.write)
        for field in FIELDS
        if isinstance(field.kept, kind)
    )


#: The members of the column ``options``, and those of a job's details.
_MEMBERS = _written(Member)
_DETAILS = _written(Detail)


#: Of each parameter by its name: its owner, such as "schedule.zone", the owner's attribute, and
#: the value's JSON -> the value.
_Loaders = Mapping[str, tuple[str, str, Callable[[Any], Any]]]


def _loaded(kind: type[Member] | type[Detail]) -> _Loaders:
    """The parameters that are kept so, with what loads them."""
    found = {}
    for field in FIELDS:
        if isinstance(field.kept, kind):
            owner, _, attribute = field.place.rpartition(".")
            found[field.name] = owner, attribute, field.kept.load
    return found


_LOADED_MEMBERS = _loaded(Member)
_LOADED_DETAILS = _loaded(Detail)


def shown_parameters(terms: Terms, has_secrets: bool = True) -> Iterator[tuple[str, Any]]:
    """
    The parameters that GET shows of a job: their names and their JSON.

    :param has_secrets: whether the payload and the headers' values are shown, unless the job
        redacts them.
    """
    shown = _json_of(terms, _SHOWN)
    if terms.delivery is PLAIN and terms.notes is NO_NOTES:
        return shown
    return chain(shown, _shown_beside(terms, has_secrets))


def _shown_beside(terms: Terms, has_secrets: bool) -> Iterator[tuple[str, Any]]:
    redact = terms.delivery.redact
    for name, value in _json_of(terms, _SHOWN_BESIDE):
        if name == "headers":
            yield (
                name,
                {
                    each: _unless_redacted(each, value[each], redact) if has_secrets else None
                    for each in value
                },
            )
        elif name not in _PAYLOADS or (has_secrets and PAYLOAD not in redact):
            yield name, value


_PAYLOADS = ("payload", "payload_base64")


def secret_parameters(terms: Terms) -> list[str]:
    """The parameters that a job has, and that only callers with the secrets see, or see whole."""
    delivery = terms.delivery
    if delivery is PLAIN:
        return []
    redact = delivery.redact
    shown = dict(_json_of(terms, _SHOWN_BESIDE))
    return [
        name
        for name, value in shown.items()
        if (name in _PAYLOADS and PAYLOAD not in redact)
        or (name == "headers" and any(each.lower() not in redact for each in value))
    ]


def _unless_redacted(header: str, value: str, redact: Container[str]) -> str | None:
    return None if header.lower() in redact else value


def _json_of(terms: Terms, parameters: _Parameters) -> Iterator[tuple[str, Any]]:
    """The names and the JSON of those parameters that a job has, and that have JSON."""
    for name, get, default, to_json in parameters:
        value = get(terms)
        if value != default and (found := to_json(value)) is not None:
            yield name, found


def kept_members(terms: Terms) -> dict[str, Any]:
    """The members of the column ``options``: their names and their JSON."""
    return dict(_json_of(terms, _MEMBERS))


def load_members(members: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """
    Read the members of the column ``options``, as `kept_members` gave them.

    :return: the options, and the arguments of the job's `Zone` that are kept beside them.
    :raises ValueError: TypeError or OverflowError, for members that it can't have given.
    """
    found = _load(members, _LOADED_MEMBERS, "option")
    return Options(**found["options"]), found["schedule.zone"]


def _load(members: Mapping[str, Any], loaders: _Loaders, what: str) -> Mapping[str, dict[str, Any]]:
    """
    The values of members by their owners and attributes.

    :param what: the noun for a member, in the sentence on one that is not known.
    :raises ValueError: as `load_members` does.
    """
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, member in members.items():
        if name not in loaders:
            raise ValueError(f"there is no {what} {name!r:.40}")
        owner, attribute, load = loaders[name]
        try:
            found[owner][attribute] = load(member)
        except InvalidRequest as problem:
            raise ValueError(str(problem)) from None
    return found


def kept_details(terms: Terms) -> dict[str, Any]:
    """
    The members of a job's details: their names and their JSON. The octets of a payload are kept
    beside them.
    """
    if terms.delivery is PLAIN and terms.notes is NO_NOTES:
        return {}
    return dict(_json_of(terms, _DETAILS))


def load_details(members: Mapping[str, Any], octets: bytes | None) -> tuple[Delivery, Notes]:
    """
    Read a job's details, as `kept_details` gave them.

    :param octets: those of the payload; None if there is none.
    :raises ValueError: TypeError or OverflowError, for details that it can't have given.
    """
    found = _load(members, _LOADED_DETAILS, "detail")
    delivery, notes = found["delivery"], found["notes"]
    kind = delivery.get("payload")
    if (kind is None) is not (octets is None):
        raise ValueError("the details and the payload do not fit")
    if kind is not None:
        assert octets is not None
        if kind is not PayloadKind.BASE64:
            octets.decode()  # ValueError if it is no text
        delivery["payload"] = Payload(octets, kind)
    return (
        Delivery(**delivery) if delivery else PLAIN,
        Notes(**notes) if notes else NO_NOTES,
    )
