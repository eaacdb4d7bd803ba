"""A snapshot of metrics as Prometheus reads it: text format, prefix `extauthz_`, through prometheus-client.

Imported only when somebody scrapes: nothing here is needed to serve calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from extauthz.server.metrics import FAMILIES, Family, Kind, Labels, Snapshot

PREFIX = "extauthz_"
CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(snapshot: Snapshot) -> bytes:
    """The text of all metrics in `snapshot`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        for family in FAMILIES:
            values = self._snapshot.get(family.name)
            if values is not None:
                yield _metric(family, values)

    def describe(self) -> Iterator[Metric]:
        return iter(())


def _metric(family: Family, values: dict[Labels, float]) -> Metric:
    name = family.name if family.standard else PREFIX + family.name
    if family.kind is Kind.HISTOGRAM:
        bounds = [(labels[0], value) for labels, value in values.items() if labels != ("sum",)]
        histogram = HistogramMetricFamily(name, family.help)
        histogram.add_metric([], bounds, values[("sum",)])
        return histogram
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(name, family.help, labels=family.labels)
    for labels, value in sorted(values.items()):
        metric.add_metric(labels, value)
    return metric
