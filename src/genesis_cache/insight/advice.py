"""Recommendations: what the figures say should be changed, each with its evidence and the setting to turn."""

from typing import Any

ENOUGH_REQUESTS = 100  # below it a ratio says nothing
LOW_HIT_RATIO = 0.5
SATURATED = 0.9  # share of a capacity
CHURN = 0.1  # evictions for room, per request


def recommendations(figures: dict[str, Any]) -> list[dict[str, str]]:
    """The advice that the figures support, the gravest first; none where there is nothing to say."""
    advice = [*_tiers(figures), *_saturation(figures), *_hit_ratio(figures)]
    return [{"title": title, "evidence": evidence, "action": action} for title, evidence, action in advice]


def _tiers(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = figures["layer_statistics"].items()
    advice = [
        (
            f"{layer} is out of use",
            f"the {row['tier']} tier is down: {row['reason']}",
            "repair it; it is tried again by itself",
        )
        for layer, row in rows
        if not row["up"]
    ]
    for layer, row in rows:
        if row["rebuilt"] or row["damaged"]:
            evidence = f"{row['damaged']} damaged records were left out, {row['rebuilt']} times the store was made anew"
            advice.append((f"{layer} was damaged", evidence, "check the disk and who else writes in its folder"))
    return advice


def _saturation(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    advice = []
    requests = figures["global_statistics"]["requests"]
    for layer, row in figures["layer_statistics"].items():
        capacity = row["capacity_bytes"]
        pushed_out = row["evictions"].get("size", 0) + row["evictions"].get("entries", 0)
        if (
            capacity
            and row["size_bytes"] > SATURATED * capacity
            and pushed_out > CHURN * max(requests, ENOUGH_REQUESTS)
        ):
            evidence = (
                f"{row['size_bytes'] / capacity:.0%} full, {pushed_out} entries pushed out in {requests} requests"
            )
            action = f"raise {layer.upper()}_CACHE_SIZE_MB, or shorten the ttl of what is seldom read"
            advice.append((f"{layer} is too small for what is asked of it", evidence, action))
    return advice


def _hit_ratio(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    advice = []
    for name, row in figures["namespaces"].items():
        if row["requests"] >= ENOUGH_REQUESTS and row["hit_ratio"] < LOW_HIT_RATIO:
            evidence = f"hit ratio {row['hit_ratio']:.0%} over {row['requests']} requests"
            action = "look for keys that never repeat, a ttl that is too short, or invalidations that are too wide"
            advice.append((f"few hits in namespace {name}", evidence, action))
    return advice
