"""Prometheus: the counters of a cache turned into metrics when somebody scrapes, and at no other time.

Labels come from closed sets (layers, reasons, results, scopes), so that the number of series depends on nothing that
is stored or asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from genesis_cache.cache import Cache
from genesis_cache.model.measures import CIRCUITS, Histogram, LayerMeasures, Measures

FIRST_BUCKET, LAST_BUCKET = 7, 35  # powers of two of a nanosecond: 128 ns to 34 s
USUAL_REASONS = ("size", "ttl")  # shown from the start, so that their rates begin at 0
SCOPES = ("key", "tag", "pattern", "clear")


class CacheCollector:
    """A collector for any registry: ``REGISTRY.register(CacheCollector(cache))``.

    ``measures`` gives the figures; by default those of this process.
    """

    def __init__(self, cache: Cache, measures: Callable[[], Measures] | None = None) -> None:
        self._measures = cache.measures if measures is None else measures

    def collect(self) -> Iterator[Metric]:
        """Every metric, as `prometheus_client` asks for it at a scrape."""
        return families(self._measures())

    def describe(self) -> list[Metric]:
        """Nothing: a registry need not scrape to learn the names."""
        return []


def exposition(measures: Measures, accept: str = "") -> tuple[bytes, str]:
    """The text of a scrape and its media type: OpenMetrics where ``accept`` asks for it, else Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(measures))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Fixed:
    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Metric]:
        return families(self._measures)


def families(measures: Measures) -> Iterator[Metric]:
    """The metrics of these figures."""
    layers = measures.layers
    yield _by_layer(CounterMetricFamily, "cache_hit", "Reads answered by a layer.", layers, lambda row: row.hits)
    yield _by_layer(
        CounterMetricFamily, "cache_miss", "Reads a layer could not answer.", layers, lambda row: row.misses
    )
    yield _response_times(layers)
    yield _by_layer(GaugeMetricFamily, "cache_size_bytes", "Bytes held.", layers, lambda row: row.size_bytes)
    bounded = {label: row for label, row in layers.items() if row.capacity_bytes is not None}
    yield _by_layer(
        GaugeMetricFamily, "cache_capacity_bytes", "Bytes allowed.", bounded, lambda row: row.capacity_bytes or 0
    )
    yield _by_layer(GaugeMetricFamily, "cache_entries", "Entries held.", layers, lambda row: row.entries)
    yield _evictions(layers)
    yield _counter("cache_loads", "Loads, by how they ended.", "result", measures.loads)
    loads = HistogramMetricFamily("cache_load_seconds", "How long loads took.")
    loads.add_metric([], *_buckets(measures.load_latency))
    yield loads
    yield CounterMetricFamily("cache_coalesced", "Callers that waited for another's load.", measures.coalesced)
    yield CounterMetricFamily("cache_stale_served", "Old values served by permission.", measures.stale_served)
    scopes = dict.fromkeys(SCOPES, 0) | measures.invalidations
    yield _counter("cache_invalidations", "Invalidations ordered here.", "scope", scopes)
    yield GaugeMetricFamily(
        "cache_invalidation_lag_seconds",
        "How long ago it was last known what other processes have invalidated.",
        measures.invalidation_lag_s,
    )
    yield from _propagation(measures)
    yield _by_layer(GaugeMetricFamily, "cache_tier_up", "1 while a layer's tier is in use.", layers, lambda row: row.up)
    yield _by_layer(
        GaugeMetricFamily,
        "cache_circuit_state",
        "0: the tier is asked; 1: one attempt is under way; 2: it is not asked.",
        layers,
        lambda row: CIRCUITS.index(row.circuit),
    )


def _propagation(measures: Measures) -> Iterator[Metric]:
    lags = HistogramMetricFamily("cache_propagation_seconds", "How long changes took to be heard on this host.")
    lags.add_metric([], *_buckets(measures.propagation))
    yield lags
    yield _counter("cache_canaries", "Proofs that changes arrive, by what became of them.", "result", measures.canaries)
    yield _counter("cache_behind", "Samples older than the shared tier's, so much later.", "after", measures.behind)
    told = "Samples still served so long after a notice had named them."
    yield _counter("cache_inconsistent", told, "after", measures.inconsistent)


def _by_layer(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    told: str,
    layers: Mapping[str, LayerMeasures],
    figure: Callable[[LayerMeasures], float],
) -> Metric:
    metric = family(name, told, labels=["layer"])
    for label, row in layers.items():
        metric.add_metric([label], figure(row))
    return metric


def _counter(name: str, told: str, label: str, figures: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(name, told, labels=[label])
    for value, number in figures.items():
        metric.add_metric([value], number)
    return metric


def _evictions(layers: Mapping[str, LayerMeasures]) -> Metric:
    metric = CounterMetricFamily("cache_evictions", "Entries that had to leave a layer.", labels=["layer", "reason"])
    for label, row in layers.items():
        for reason, number in (dict.fromkeys(USUAL_REASONS, 0) | row.evictions).items():
            metric.add_metric([label, reason], number)
    return metric


def _response_times(layers: Mapping[str, LayerMeasures]) -> Metric:
    metric = HistogramMetricFamily(
        "cache_response_time_seconds", "How long reads of a layer took; a sample of them.", labels=["layer"]
    )
    for label, row in layers.items():
        metric.add_metric([label], *_buckets(row.latency))
    return metric


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Upper bounds with cumulative counts, and the sum. What took less than the first bound is counted under it."""
    running: Iterable[int] = accumulate(histogram.counts)
    rows = list(enumerate(running))
    bounds = [(repr(2**bits / 1e9), float(number)) for bits, number in rows[FIRST_BUCKET : LAST_BUCKET + 1]]
    return [*bounds, ("+Inf", float(rows[-1][1]))], histogram.total_s
