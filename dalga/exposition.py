"""
The numbers of `dalga.metrics` as Prometheus reads them.

A scrape is one call of `text`, which writes numbers in the format that was asked for. It takes some
milliseconds, so a thread may do it, with numbers that the reactor's thread has looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dalga.metrics import FAMILIES, Counts, Family, Kind, Numbers

#: The label that the numbers of workers have, beside those of their family.
WORKER = "worker"


class Shown(NamedTuple):
    """The numbers of one instance."""

    numbers: Numbers
    #: Which worker of its daemon it is; None if the daemon has no workers.
    worker: int | None = None


def text(shown: Sequence[Shown], accept: str) -> tuple[bytes, str]:
    """
    Numbers as a text, and the text's media type.

    :param accept: the Accept header of the request: OpenMetrics where it asks for that, else
        Prometheus's older format.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(shown))
    encoder, content_type = _encoder(accept)
    return encoder(registry), content_type


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        # The client knows no quotes around a version, which HTTP allows.
        return choose_encoder(accept.replace('"', ""))
    except (TypeError, ValueError):
        # A version that is no number: a scrape does not fail for that.
        return choose_encoder("")


class _Collector:
    """What the registry collects from."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        return families(self._shown)


def families(shown: Sequence[Shown]) -> Iterator[Metric]:
    """The families that have numbers, in the order of the table."""
    has_workers = any(each.worker is not None for each in shown)
    more = (WORKER,) if has_workers else ()
    for family in FAMILIES:
        metric = _empty(family, more)
        for each in shown:
            of_worker = (str(each.worker),) if has_workers else ()
            for labels, value in each.numbers.get(family.name, {}).items():
                _add(metric, family, (*labels, *of_worker), value)
        if metric.samples:
            yield metric


def _empty(family: Family, more: tuple[str, ...]) -> Metric:
    labels = (*family.labels, *more)
    match family.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(family.name, family.help, labels=labels)
        case Kind.GAUGE:
            return GaugeMetricFamily(family.name, family.help, labels=labels)
        case Kind.INFO:
            return InfoMetricFamily(family.name.removesuffix("_info"), family.help, labels=more)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(family.name, family.help, labels=labels)


def _add(metric: Metric, family: Family, labels: tuple[str, ...], value: float | Counts) -> None:
    match metric:
        case HistogramMetricFamily():
            assert isinstance(value, Counts)
            metric.add_metric(labels, _cumulated(family, value), value.sum)
        case InfoMetricFamily():
            named = dict(zip(family.labels, labels, strict=False))
            metric.add_metric(labels[len(family.labels) :], named)
        case CounterMetricFamily() | GaugeMetricFamily():
            assert not isinstance(value, Counts)
            metric.add_metric(labels, value)


def _cumulated(family: Family, counts: Counts) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each has all values up to its bound."""
    names = (*(str(float(bound)) for bound in family.bounds), "+Inf")
    return list(zip(names, accumulate(counts.buckets), strict=True))
