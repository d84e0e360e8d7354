"""Efficiency: a score, alerts and advice, worked out from the figures alone."""

from collections.abc import Mapping
from typing import Any

ENOUGH_REQUESTS = 100  # below it a ratio says nothing
LOW_HIT_RATIO = 0.5
FULL = 0.9  # share of a capacity
CHURN = 0.1  # entries pushed out for room, per request
FOR_HITS, FOR_TIERS, FOR_ROOM = 60, 25, 15


def efficiency(figures: Mapping[str, Any]) -> dict[str, Any]:
    """``score`` (0 to 100), ``recommendations`` and ``alerts`` for the figures of `Cache.analytics`."""
    return {
        "score": score(figures),
        "recommendations": list(figures["recommendations"]),
        "alerts": alerts(figures),
    }


def score(figures: Mapping[str, Any]) -> int:
    """60 points for the share of hits, 25 for the share of tiers that are up, 15 for that of tiers with room.

    Until anything has been asked for, the hits count as all right.
    """
    whole = figures["global_statistics"]
    rows = figures["layer_statistics"]
    hits = whole["global_hit_ratio"] if whole["requests"] else 1.0
    up = sum(bool(row["up"]) for row in rows.values()) / max(len(rows), 1)
    roomy = sum(not is_saturated(row, whole["requests"]) for row in rows.values()) / max(len(rows), 1)
    return round(min(1.0, hits) * FOR_HITS + up * FOR_TIERS + roomy * FOR_ROOM)


def alerts(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is to be looked at now, the gravest first."""
    whole, rows = figures["global_statistics"], figures["layer_statistics"]
    found = [
        _alert("tier_down", "critical", f"{layer} ({row['tier']}) is out of use: {row['reason']}")
        for layer, row in rows.items()
        if not row["up"]
    ]
    for layer, row in rows.items():
        if is_saturated(row, whole["requests"]):
            full = f"{row['size_bytes'] / row['capacity_bytes']:.0%} full" if row["capacity_bytes"] else "full"
            told = f"{layer} ({row['tier']}) is {full} and pushed out {_pushed_out(row)} entries for room"
            found.append(_alert("saturation", "warning", told))
    if whole["requests"] >= ENOUGH_REQUESTS and whole["global_hit_ratio"] < LOW_HIT_RATIO:
        told = f"hit ratio {whole['global_hit_ratio']:.0%} over {whole['requests']} requests"
        found.append(_alert("low_hit_ratio", "warning", told))
    return found


def is_saturated(row: Mapping[str, Any], requests: int) -> bool:
    """Whether a layer has to push out what it was given: full, and by more than one entry in ten requests."""
    capacity = row["capacity_bytes"]
    is_full = bool(capacity) and row["size_bytes"] > FULL * capacity
    by_entries = row["evictions"].get("entries", 0) > 0
    return (is_full or by_entries) and _pushed_out(row) > CHURN * max(requests, ENOUGH_REQUESTS)


def _pushed_out(row: Mapping[str, Any]) -> int:
    evictions = row["evictions"]
    return int(evictions.get("size", 0) + evictions.get("entries", 0))


def _alert(name: str, severity: str, message: str) -> dict[str, str]:
    return {"name": name, "severity": severity, "message": message}
