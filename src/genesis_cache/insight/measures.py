"""The counters of a cache as `Measures`, read from where they are kept when somebody asks: nothing is paid before."""

from collections import Counter
from collections.abc import Mapping

from genesis_cache.engine.core import Core, Lane
from genesis_cache.model.measures import Histogram, LayerMeasures, Measures
from genesis_cache.model.meter import Latency, LayerMeter
from genesis_cache.model.propagation import Propagation
from genesis_cache.tiers.base import StoreStats


def measures(core: Core) -> Measures:
    """Everything that is counted, now. Its cost does not depend on how much the cache holds."""
    spaces = [space.meter for space in list(core.spaces.values())]
    layers: dict[str, LayerMeasures] = {}
    if core.memory is not None:
        hits = sum(meter.near_hits for meter in spaces)
        layers[core.near_label] = _layer("memory", core.near_meter, hits, core.memory.stats(), "closed")
    for lane in core.lanes:
        layers[lane.label] = _far(lane)
    invalidations: Counter[str] = Counter()
    for meter in spaces:
        invalidations.update(meter.invalidations)
    return Measures(
        layers=dict(sorted(layers.items())),
        loads=dict(core.load_results),
        load_latency=_histogram(core.load_latency),
        coalesced=sum(meter.coalesced for meter in spaces),
        stale_served=sum(meter.stale_served for meter in spaces),
        invalidations=dict(invalidations),
        invalidation_lag_s=_lag_s(core),
        propagation=_propagation(core.propagation),
        canaries=_canaries(core.propagation),
        behind=_after(core.propagation.behind),
        inconsistent=_after(core.propagation.inconsistent),
    )


def _propagation(told: Propagation) -> Histogram:
    lags = _histogram(told.lag)
    lags.add(_histogram(told.own_lag))
    return lags


def _canaries(told: Propagation) -> dict[str, int]:
    return {"sent": told.canaries_sent, "heard": told.canaries_heard, "missed": told.canaries_missed}


def _after(counts: Mapping[float, int]) -> dict[str, int]:
    return {f"{seconds:g}s": number for seconds, number in counts.items()}


def _far(lane: Lane) -> LayerMeasures:
    tier = lane.tier
    circuit = getattr(tier, "circuit", "closed" if tier.down is None else "open")  # an embedded tier has no half-way
    return _layer(tier.kind, lane.meter, lane.meter.hits, tier.stats(), str(circuit), is_up=tier.down is None)


def _layer(
    kind: str, meter: LayerMeter, hits: int, stats: StoreStats, circuit: str, *, is_up: bool = True
) -> LayerMeasures:
    return LayerMeasures(
        tier=kind,
        hits=hits,
        misses=meter.misses,
        entries=stats.entries,
        size_bytes=stats.size_bytes,
        capacity_bytes=stats.capacity_bytes,
        evictions=dict(stats.evictions),
        latency=_histogram(meter.latency),
        up=is_up,
        circuit=circuit,
    )


def _histogram(latency: Latency) -> Histogram:
    return Histogram(list(latency.counts), latency.total_s)


def _lag_s(core: Core) -> float:
    """Nothing where the log is looked at when it is read from: then there is no lag to speak of."""
    heard_at = None if core.authority is None else core.authority.tier.heard_at
    return 0.0 if heard_at is None else max(0.0, core.clock.now() - heard_at)
