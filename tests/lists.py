"""Lists of jobs as they have to be: without indexes, by a look at each job."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from random import Random
from typing import Any

from dalga.model.job import Job, Standing, UnreadableJob, endpoint_of
from dalga.model.key import Position
from dalga.model.listing import Driver, DuePlace, Filters, Page, Place, Query, StatePlace
from dalga.model.permit import Area, Limits
from dalga.model.state import state_of
from dalga.store.dialect import instant_text

#: A row's id, and its job.
Row = tuple[int, Job | UnreadableJob]


def page_of(rows: Iterable[Row], query: Query, now: datetime) -> Page:
    """A page of these rows, never a partial one."""
    filters = query.filters
    found = sorted(
        (row for row in rows if fits(row[1], filters, now)), key=lambda row: order(row, filters)
    )
    if query.after is not None:
        found = [row for row in found if _order(place(row, filters)) > _order(query.after)]
    shown = found[: query.limit]
    last = place(shown[-1], filters) if len(found) > query.limit else None
    return Page([job for _, job in shown], last)


def fits(
    job: Job | UnreadableJob, filters: Filters, now: datetime, tags: Collection[str] | None = None
) -> bool:
    """
    Whether all filters apply to a job.

    :param tags: the tags of the job's row; None for those of the job.
    """
    due = job.due if isinstance(job, Job) else None
    if tags is None:
        tags = job.notes.tags if isinstance(job, Job) else ()
    return all(
        (
            filters.limits is None or filters.limits.have(job.key.path, endpoint_of(job)),
            filters.path in (None, job.key.path),
            job.key.path.startswith(filters.prefix or ""),
            filters.body in (None, job.key.body),
            (filters.contains or "") in job.key.path or (filters.contains or "") in job.key.body,
            not filters.tags or bool(filters.tags.intersection(tags)),
            not filters.states or state_of(job, now) in filters.states,
            filters.endpoint is None
            or (isinstance(job, Job) and job.options.endpoint == filters.endpoint),
            filters.due_before is None or (due is not None and due < filters.due_before),
            filters.due_after is None or (due is not None and due > filters.due_after),
        )
    )


def some_limits(random: Random) -> Limits:
    """Limits of some areas, none of which has all jobs."""
    areas = []
    for _ in range(random.choice([1, 1, 2, 3])):
        prefixes = random.sample(["a", "a/", "ab", "b", "ö", "x"], random.choice([0, 1, 1, 2, 3]))
        endpoints = random.sample(["default", "billing", "none"], random.choice([0, 1, 2]))
        if prefixes or endpoints:
            areas.append(Area(tuple(prefixes), tuple(endpoints)))
    return Limits(tuple(areas) or (Area(("a",)),))


def order(row: Row, filters: Filters) -> tuple[Any, ...]:
    """By what a list is sorted."""
    return _order(place(row, filters))


def place(row: Row, filters: Filters) -> Place:
    """A row's place in a list."""
    id, job = row
    match filters.driver:
        case Driver.DUE:
            due = job.due if isinstance(job, Job) else None
            return DuePlace(None if due is None else instant_text(due).encode(), id)
        case Driver.STATE:
            if isinstance(job, UnreadableJob):
                return StatePlace(0, Standing.ASIDE, id)
            return StatePlace(int(job.disabled), job.standing, id)
        case _:
            return Position(job.key.path.encode(), job.key.body.encode())


def _order(place: Place) -> tuple[Any, ...]:
    if isinstance(place, DuePlace):
        return place.due is None, place.due or b"", place.id
    return tuple(place)


def by_key(path: str | None, after: Place | None, limit: int) -> Query:
    """A page of the jobs of a path, or of all jobs, in the order of their keys."""
    return Query(Filters(path=path), after, limit)
