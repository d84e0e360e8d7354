"""The Grafana dashboard, made from what this file says; ``python deploy/grafana/build.py`` writes its JSON.

The classic schema, which every Grafana since 8 imports. A test holds that the JSON is the one this file makes.
"""
# ruff: noqa: INP001  # run by path

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "dashboards" / "genesis-cache.json"
WIDTH = 24  # columns of Grafana's grid
MINE = 'job=~"$job"'
BAD, MIDDLING, GOOD = "#d6503f", "#b4821a", "#0f9285"
COLOURS = {"l1": "#0f9285", "l2": "#3b6fd6", "l3": "#8a5bd1", "l4": "#c04a98"}

Panel = dict[str, Any]


def rate(metric: str, labels: str = MINE) -> str:
    """How fast a counter grows, by the second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


FIRST = MINE + ',layer="l1"'
READS = f"(sum({rate('cache_hit_total', FIRST)}) + sum({rate('cache_miss_total', FIRST)}))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram, over all instances."""
    return f"histogram_quantile({share}, sum by (le{by}) ({rate(metric + '_bucket')}))"


def query(expression: str, legend: str = "__auto") -> dict[str, str]:
    """One query of a panel."""
    return {"expr": expression, "legendFormat": legend}


def panel(kind: str, title: str, told: str, queries: list[dict[str, str]], unit: str, **options: Any) -> Panel:
    """A panel without its place."""
    steps = options.pop("steps", None)
    defaults: dict[str, Any] = {"unit": unit, "min": 0, **options.pop("defaults", {})}
    if steps:
        rows = [{"color": colour, "value": value} for colour, value in steps]
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": rows}}
    targets = [
        {"refId": chr(ord("A") + place), "datasource": {"type": "prometheus", "uid": "$datasource"}, **one}
        for place, one in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": told,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "fieldConfig": {"defaults": defaults, "overrides": options.pop("overrides", [])},
        "targets": targets,
        **options,
    }


def stat(title: str, told: str, expression: str, unit: str, **options: Any) -> Panel:
    """A single figure with its recent course behind it."""
    shown = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "value"}
    return panel("stat", title, told, [query(expression)], unit, options=shown, **options)


def lines(title: str, told: str, queries: list[dict[str, str]], unit: str, **options: Any) -> Panel:
    """Lines over time, layers always in the same colours; ``stacked`` and ``log`` change how."""
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": True}
    if options.pop("stacked", False):
        custom |= {"fillOpacity": 45, "stacking": {"mode": "normal", "group": "A"}}
    if options.pop("log", False):
        custom |= {"fillOpacity": 0, "scaleDistribution": {"type": "log", "log": 10}}
        options["defaults"] = {"min": None}
    overrides = [
        {
            "matcher": {"id": "byRegexp", "options": f"^{layer}\\b.*"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for layer, colour in COLOURS.items()
    ]
    options["defaults"] = {"custom": custom, **options.get("defaults", {})}
    shown = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, told, queries, unit, options=shown, overrides=overrides, **options)


def overview() -> list[Panel]:
    """Whether it pays, and whether it is well."""
    hits = f"clamp_max(sum({rate('cache_hit_total')}) / {READS}, 1)"
    failed = MINE + ',result!="ok"'
    return [
        stat(
            "Hit ratio",
            "Reads that any tier answered, of all reads.",
            hits,
            "percentunit",
            steps=[(BAD, None), (MIDDLING, 0.5), (GOOD, 0.8)],
            defaults={"max": 1},
        ),
        stat("Reads", "Reads a second that were asked of the first tier.", READS, "reqps"),
        stat("Loads", "Loads a second that the source was asked for.", f"sum({rate('cache_loads_total')})", "ops"),
        stat(
            "Failed loads",
            "Loads a second that ended with an error or by their deadline.",
            f"sum({rate('cache_loads_total', failed)})",
            "ops",
            steps=[(GOOD, None), (BAD, 0.01)],
        ),
        stat(
            "Tiers down",
            "Tiers out of use, over all instances.",
            f"count(cache_tier_up{{{MINE}}} == 0) or vector(0)",
            "short",
            steps=[(GOOD, None), (BAD, 1)],
        ),
        stat(
            "Invalidation lag",
            "The longest that an instance has not known what others invalidated.",
            f"max(cache_invalidation_lag_seconds{{{MINE}}})",
            "s",
            steps=[(GOOD, None), (MIDDLING, 1), (BAD, 5)],
        ),
    ]


def traffic() -> list[Panel]:
    """Where reads are answered, and how fast."""
    missed = f"{READS} - sum({rate('cache_hit_total')})"
    response = "cache_response_time_seconds"
    return [
        lines(
            "Reads by where they were answered",
            "Hits of each tier; missed is what no tier had: loaded, waited for, or not found.",
            [
                query(f"sum by (layer) ({rate('cache_hit_total')})", "{{layer}}"),
                query(f"clamp_min({missed}, 0)", "missed"),
            ],
            "reqps",
            stacked=True,
        ),
        lines(
            "Hit ratio of each tier",
            "Of the reads that reached it.",
            [
                query(
                    f"sum by (layer) ({rate('cache_hit_total')}) / (sum by (layer) ({rate('cache_hit_total')})"
                    f" + sum by (layer) ({rate('cache_miss_total')}))",
                    "{{layer}}",
                )
            ],
            "percentunit",
            defaults={"max": 1},
        ),
        lines(
            "Latency of each tier",
            "Median and 99th percentile of a sample of its reads.",
            [
                query(quantile(0.5, response, ", layer"), "{{layer}} p50"),
                query(quantile(0.99, response, ", layer"), "{{layer}} p99"),
            ],
            "s",
            log=True,
        ),
        lines(
            "How loads end",
            "Calls of the source, by how they ended.",
            [query(f"sum by (result) ({rate('cache_loads_total')})", "{{result}}")],
            "ops",
            stacked=True,
        ),
        lines(
            "How long loads take",
            "Median and 99th percentile.",
            [
                query(quantile(0.5, "cache_load_seconds"), "p50"),
                query(quantile(0.99, "cache_load_seconds"), "p99"),
            ],
            "s",
            log=True,
        ),
        lines(
            "Spared",
            "Callers that waited for another's load instead of loading, and old values served by permission.",
            [
                query(f"sum({rate('cache_coalesced_total')})", "waited for another's load"),
                query(f"sum({rate('cache_stale_served_total')})", "old value"),
            ],
            "ops",
        ),
    ]


def room() -> list[Panel]:
    """What tiers hold, and what had to leave them."""
    return [
        lines(
            "Fullness",
            "Bytes held, of those allowed.",
            [query(f"sum by (layer) (cache_size_bytes{{{MINE}}}) / sum by (layer) (cache_capacity_bytes{{{MINE}}})")],
            "percentunit",
        ),
        lines("Bytes held", "By tier.", [query(f"sum by (layer) (cache_size_bytes{{{MINE}}})", "{{layer}}")], "bytes"),
        lines("Entries", "Held, by tier.", [query(f"sum by (layer) (cache_entries{{{MINE}}})", "{{layer}}")], "short"),
        lines(
            "Evictions",
            "Entries a second that had to leave, by tier and reason: size and entries mean that there was no room.",
            [query(f"sum by (layer, reason) ({rate('cache_evictions_total')})", "{{layer}} {{reason}}")],
            "ops",
        ),
    ]


def health() -> list[Panel]:
    """Tiers, circuits, and what processes hear of each other."""
    return [
        lines(
            "Tiers in use",
            "Instances in which a tier is in use.",
            [query(f"sum by (layer) (cache_tier_up{{{MINE}}})", "{{layer}}")],
            "short",
        ),
        lines(
            "Circuits",
            "0: the tier is asked; 1: one attempt is under way; 2: it is not asked.",
            [query(f"max by (layer) (cache_circuit_state{{{MINE}}})", "{{layer}}")],
            "short",
            defaults={"max": 2},
        ),
        lines(
            "Invalidations",
            "Orders a second, by what they name.",
            [query(f"sum by (scope) ({rate('cache_invalidations_total')})", "{{scope}}")],
            "ops",
        ),
        lines(
            "What each instance hears",
            "How long ago each instance last knew what others invalidated.",
            [query(f"max by (instance) (cache_invalidation_lag_seconds{{{MINE}}})", "{{instance}}")],
            "s",
        ),
    ]


def placed() -> Iterator[Panel]:
    """Every panel with its number and its place: rows of six, three, two and two."""
    numbers, y = count(1), 0
    rows = (("", overview(), 6, 4), ("Reads", traffic(), 3, 8), ("Room", room(), 2, 8), ("Health", health(), 2, 8))
    for title, panels, across, height in rows:
        if title:
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            yield {"id": next(numbers), "type": "row", "title": title, "gridPos": place, "panels": []}
            y += 1
        width = WIDTH // across
        for number, one in enumerate(panels):
            place = {"x": number % across * width, "y": y + number // across * height, "w": width, "h": height}
            yield {"id": next(numbers), **one, "gridPos": place}
        y += -(-len(panels) // across) * height


def dashboard() -> dict[str, Any]:
    """The whole document."""
    jobs = "label_values(cache_tier_up, job)"
    return {
        "uid": "genesis-cache",
        "title": "Genesis Cache",
        "description": "What the caches of a service hold and do. Made by deploy/grafana/build.py.",
        "tags": ["cache"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "job",
                    "label": "Job",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "$datasource"},
                    "definition": jobs,
                    "query": {"query": jobs, "refId": "job"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".+",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": list(placed()),
    }


def text() -> str:
    """The file as it is written."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
