"""OpenTelemetry: a cache's counters as observable instruments, and spans for loads and for calls to servers.

A hit in memory makes no span and no measurement: the counters are read when a reader collects. Attributes come from
closed sets; keys, users and tags are never among them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import SpanKind, TracerProvider, get_tracer

from genesis_cache import __version__
from genesis_cache.cache import Cache
from genesis_cache.model.measures import LayerMeasures, Measures

SCOPE = "genesis_cache"
SYSTEMS = {"redis": "redis", "database": "postgresql"}  # db.system.name of the semantic conventions
SAME_COLLECTION_S = 0.1  # instruments of one collection share one reading of the counters

Figures = Callable[[Measures], Iterator[tuple[float, Mapping[str, str]]]]


def instrument(
    cache: Cache, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
) -> Callable[[], None]:
    """Show a cache to OpenTelemetry; the providers are the global ones unless given. Returns its own undoing.

    Instruments cannot be taken back: after the undoing they observe nothing.
    """
    readings = _Readings(cache)
    meter = get_meter(SCOPE, __version__, meter_provider)
    for name, unit, told, figures in COUNTERS:
        meter.create_observable_counter(name, [readings.observed(figures)], unit=unit, description=told)
    for name, unit, told, figures in GAUGES:
        meter.create_observable_gauge(name, [readings.observed(figures)], unit=unit, description=told)
    tracer = get_tracer(SCOPE, __version__, tracer_provider)

    def loaded(event: Mapping[str, Any]) -> None:
        """A load has ended well: its span, after the fact, inside the span of who asked first."""
        end = time.time_ns()
        span = tracer.start_span(
            "cache.load",
            kind=SpanKind.INTERNAL,
            start_time=end - int(event["seconds"] * 1e9),
            attributes={"cache.namespace": event["namespace"]},
        )
        span.end(end)

    def called(layer: str, tier: str, operation: str, items: int) -> AbstractContextManager[object]:
        attributes: dict[str, str | int] = {
            "cache.layer": layer,
            "cache.items": items,
            "db.system.name": SYSTEMS.get(tier, tier),
            "db.operation.name": operation,
        }
        return tracer.start_as_current_span(f"cache.{operation}", kind=SpanKind.CLIENT, attributes=attributes)

    undo = (cache.on("load", loaded), cache.trace(called), readings.end)

    def end() -> None:
        for one in undo:
            one()

    return end


class _Readings:
    """The counters, read once for all instruments of a collection."""

    def __init__(self, cache: Cache) -> None:
        self._cache: Cache | None = cache
        self._read_at = 0.0
        self._measures: Measures | None = None

    def observed(self, figures: Figures) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def callback(_: CallbackOptions) -> Iterator[Observation]:
            measures = self._now()
            if measures is not None:
                for number, attributes in figures(measures):
                    yield Observation(number, dict(attributes))

        return callback

    def _now(self) -> Measures | None:
        now = time.monotonic()
        if self._cache is not None and (self._measures is None or now - self._read_at > SAME_COLLECTION_S):
            self._measures, self._read_at = self._cache.measures(), now
        return self._measures

    def end(self) -> None:
        self._cache = self._measures = None


def _layers(figure: Callable[[LayerMeasures], float]) -> Figures:
    def figures(measures: Measures) -> Iterator[tuple[float, Mapping[str, str]]]:
        for label, row in measures.layers.items():
            yield figure(row), {"layer": label, "tier": row.tier}

    return figures


def _evictions(measures: Measures) -> Iterator[tuple[float, Mapping[str, str]]]:
    for label, row in measures.layers.items():
        for reason, number in row.evictions.items():
            yield number, {"layer": label, "tier": row.tier, "reason": reason}


def _named(attribute: str, figures_of: Callable[[Measures], Mapping[str, int]]) -> Figures:
    def figures(measures: Measures) -> Iterator[tuple[float, Mapping[str, str]]]:
        for name, number in figures_of(measures).items():
            yield number, {attribute: name}

    return figures


def _whole(figure: Callable[[Measures], float]) -> Figures:
    def figures(measures: Measures) -> Iterator[tuple[float, Mapping[str, str]]]:
        yield figure(measures), {}

    return figures


def _bounded(measures: Measures) -> Iterator[tuple[float, Mapping[str, str]]]:
    for label, row in measures.layers.items():
        if row.capacity_bytes is not None:
            yield row.capacity_bytes, {"layer": label, "tier": row.tier}


COUNTERS: tuple[tuple[str, str, str, Figures], ...] = (
    ("cache.hits", "{read}", "Reads answered by a layer.", _layers(lambda row: row.hits)),
    ("cache.misses", "{read}", "Reads a layer could not answer.", _layers(lambda row: row.misses)),
    ("cache.evictions", "{entry}", "Entries that had to leave a layer.", _evictions),
    ("cache.loads", "{load}", "Loads, by how they ended.", _named("result", lambda whole: whole.loads)),
    ("cache.load.time", "s", "Seconds spent in loads.", _whole(lambda whole: whole.load_latency.total_s)),
    ("cache.coalesced", "{read}", "Callers that waited for another's load.", _whole(lambda whole: whole.coalesced)),
    ("cache.stale_served", "{read}", "Old values served by permission.", _whole(lambda whole: whole.stale_served)),
    ("cache.invalidations", "{order}", "Invalidations.", _named("scope", lambda whole: whole.invalidations)),
    ("cache.canaries", "{notice}", "Proofs that changes arrive.", _named("result", lambda whole: whole.canaries)),
    ("cache.behind", "{entry}", "Samples older than the shared tier's.", _named("after", lambda whole: whole.behind)),
    ("cache.inconsistent", "{entry}", "Samples not to be.", _named("after", lambda whole: whole.inconsistent)),
)
GAUGES: tuple[tuple[str, str, str, Figures], ...] = (
    ("cache.size", "By", "Bytes held.", _layers(lambda row: row.size_bytes)),
    ("cache.capacity", "By", "Bytes allowed.", _bounded),
    ("cache.entries", "{entry}", "Entries held.", _layers(lambda row: row.entries)),
    ("cache.tier.up", "1", "1 while a layer's tier is in use.", _layers(lambda row: int(row.up))),
    (
        "cache.invalidation.lag",
        "s",
        "How long ago it was last known what other processes have invalidated.",
        _whole(lambda whole: whole.invalidation_lag_s),
    ),
)
