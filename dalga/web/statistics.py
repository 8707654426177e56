"""
Statistics and instances: the query of `/stats` -> what is asked for; answers -> JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from dalga.model.histogram import DURATION_BOUNDS, FACTOR, LATENESS_BOUNDS
from dalga.model.instance import Instance
from dalga.model.reading import Reader, Value, elapsed_within, instant, one_of
from dalga.model.schedule import exact_timestamp
from dalga.model.statistics import MAX_STEP, MINUTE, Group, StatsQuery, stats_query
from dalga.series import Point, Quantiles, Series
from dalga.web.bodies import form_pairs
from dalga.web.lists import of_key, part
from dalga.web.presentation import as_json
from dalga.web.values import read_values


def step(name: str, value: Value) -> timedelta:
    """:return: a duration from a minute on."""
    return elapsed_within(name, value, MINUTE, MAX_STEP)


#: The parameters of statistics.
STATS: Mapping[str, Reader] = MappingProxyType(
    {
        "from": instant,
        "to": instant,
        "step": step,
        "group": one_of(Group),
        "endpoint": part,
        "path": of_key,
    }
)


def statistics(query: bytes, now: datetime) -> StatsQuery:
    """
    Read the parameters of a GET of statistics.

    :param now: the database's time.
    :raises InvalidRequest: for a parameter that is unknown, not understood or repeated, and for
        what can't be answered.
    """
    values = read_values(form_pairs(query), STATS, "statistics take")
    begin, end = values.pop("from", None), values.pop("to", None)
    return stats_query(now, begin, end, **values)


def series_json(series: Series) -> bytes:
    """Statistics. Instants are in RFC 3339, all else is in seconds."""
    query = series.query
    shown: dict[str, Any] = {
        "from": exact_timestamp(query.begin),
        "to": exact_timestamp(query.end),
        "step": int(query.step.total_seconds()),
        "group": query.group,
        "endpoint": query.endpoint,
        "path": query.path,
    }
    members = {name: value for name, value in shown.items() if value is not None}
    members["series"] = [
        {**_name(query, name), "points": [_point(point) for point in points]}
        for name, points in series.points.items()
    ]
    members["accuracy"] = {
        "factor": FACTOR,
        "lateness": [LATENESS_BOUNDS[0], LATENESS_BOUNDS[-1]],
        "duration": [DURATION_BOUNDS[0], DURATION_BOUNDS[-1]],
    }
    return as_json(members)


def _name(query: StatsQuery, name: str) -> dict[str, str | None]:
    """What tells a series from the others. All paths without sums of their own are null."""
    return {} if query.group is None else {query.group.value: name or None}


def _point(point: Point) -> dict[str, Any]:
    return {
        "at": exact_timestamp(point.at),
        "runs": point.runs,
        "attempts": point.attempts,
        "lateness": _quantiles(point.lateness),
        "duration": _quantiles(point.duration),
    }


def _quantiles(quantiles: Quantiles) -> dict[str, float | None]:
    return {
        name: None if value is None else float(f"{value:.3g}")
        for name, value in zip(quantiles._fields, quantiles, strict=True)
    }


def instances_json(instances: Sequence[Instance], own: str) -> bytes:
    """
    The instances.

    :param own: the name of the instance that answers.
    """
    return as_json({"instances": [_instance(each, own) for each in instances]})


def _instance(instance: Instance, own: str) -> dict[str, Any]:
    about = instance.about
    members: dict[str, Any] = {
        "instance_id": instance.name,
        "version": about.version,
        "since": None if instance.since is None else exact_timestamp(instance.since),
        "heartbeat_age": round(instance.age, 3),
        "slots": about.slots,
        "running": about.running,
        "clock_offset": about.clock_offset,
        "database_latency": about.latency,
    }
    return {**members, "answering": True} if instance.name == own else members
