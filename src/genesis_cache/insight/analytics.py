"""The figures of a cache as a JSON-ready dict, read from plain counters when somebody asks."""

from typing import Any

from genesis_cache.engine.core import Core, Lane, Space
from genesis_cache.insight.advice import recommendations
from genesis_cache.insight.coherence import coherence
from genesis_cache.model.meter import LayerMeter
from genesis_cache.tiers.base import StoreStats

ROOT_NAME = "(root)"  # how the namespace without a name is shown


def analytics(core: Core) -> dict[str, Any]:
    """Everything: global figures, a row a layer and a namespace, recommendations, prefetch."""
    figures: dict[str, Any] = {
        "global_statistics": _global(core),
        "layer_statistics": layers(core),
        "namespaces": {space.name or ROOT_NAME: _space(space) for space in core.spaces.values()},
        "coherence": coherence(core),
        "prefetch": {"enabled": False, "issued": 0, "useful": 0, "precision": 0.0, "wasted": 0},
    }
    figures["recommendations"] = recommendations(figures)
    return figures


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _space(space: Space) -> dict[str, Any]:
    meter = space.meter
    hits = meter.near_hits + meter.far_hits + meter.stale_served - meter.stale_waited
    requests = hits + meter.misses + meter.coalesced
    return {
        "requests": requests,
        "hits": hits,
        "misses": meter.misses,
        "hit_ratio": _ratio(hits, requests),
        "loads": meter.loads,
        "load_errors": meter.load_errors,
        "loads_given_up": meter.loads_given_up,
        "loads_running": space.gate.running,
        "loads_queued": space.gate.queued,
        "slow_starts": space.gate.ramps,
        "origin": space.gate.origin.trouble or "well",
        "coalesced": meter.coalesced,
        "stale_served": meter.stale_served,
        "refreshes": meter.refreshes,
        "refreshes_put_off": meter.refreshes_put_off,
        "not_modified": meter.not_modified,
        "negatives_served": meter.negatives_served,
        "fallbacks": meter.fallbacks,
        "streams_live": meter.streams_live,
        "streams_replayed": meter.streams_replayed,
        "unencodable": meter.unencodable,
        "invalidations": dict(meter.invalidations),
    }


def _global(core: Core) -> dict[str, Any]:
    rows = [_space(space) for space in core.spaces.values()]
    total = {
        name: sum(row[name] for row in rows)
        for name in ("requests", "hits", "misses", "loads", "coalesced", "stale_served")
    }
    near_hits = sum(space.meter.near_hits for space in core.spaces.values())
    sampled = core.near_meter.latency
    near_mean = _ratio(sampled.total_s, sampled.count)
    timed = near_hits + core.latency.count
    avoided = total["hits"] + total["coalesced"]
    load_mean = _ratio(core.load_latency.total_s, core.load_latency.count)
    return {
        "global_hit_ratio": _ratio(total["hits"], total["requests"]),
        "average_response_time_ms": 1000 * _ratio(near_mean * near_hits + core.latency.total_s, timed),
        "requests": total["requests"],
        "hits": total["hits"],
        "misses": total["misses"],
        "loads": total["loads"],
        "loads_avoided": avoided,
        "seconds_saved": avoided * load_mean,
        "coalesced": total["coalesced"],
        "stale_served": total["stale_served"],
        "load_results": dict(core.load_results),
        "load_p50_ms": 1000 * core.load_latency.quantile(0.5),
        "load_p99_ms": 1000 * core.load_latency.quantile(0.99),
        "abandoned_loads": core.loads_abandoned,
    }


def layers(core: Core) -> dict[str, dict[str, Any]]:
    """A row a layer, in look-up order."""
    rows: dict[str, dict[str, Any]] = {}
    if core.memory is not None:
        near_hits = sum(space.meter.near_hits for space in core.spaces.values())
        rows[core.near_label] = _layer("memory", core.near_meter, near_hits, core.memory.stats(), None)
    for lane in core.lanes:
        rows[lane.label] = _far_layer(lane)
    return dict(sorted(rows.items()))


def _far_layer(lane: Lane) -> dict[str, Any]:
    row = _layer(lane.tier.kind, lane.meter, lane.meter.hits, lane.tier.stats(), lane.tier.down)
    return {**row, "owed": lane.owed, "queued": lane.queued}


def _layer(kind: str, meter: LayerMeter, hits: int, stats: StoreStats, down: str | None) -> dict[str, Any]:
    return {
        "tier": kind,
        "hit_ratio": _ratio(hits, hits + meter.misses),
        "hits": hits,
        "misses": meter.misses,
        "errors": meter.errors,
        "late": meter.late,
        "entries": stats.entries,
        "size_bytes": stats.size_bytes,
        "capacity_bytes": stats.capacity_bytes,
        "evictions": dict(stats.evictions),
        "damaged": stats.damaged,
        "rebuilt": stats.rebuilt,
        "p50_ms": 1000 * meter.latency.quantile(0.5),
        "p99_ms": 1000 * meter.latency.quantile(0.99),
        "owed": 0,
        "queued": 0,
        "up": down is None,
        "reason": down,
    }
