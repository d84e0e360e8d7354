"""Commands that look and change nothing: stats, explain."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

from typing import Annotated, Any

import typer
from rich.console import Console

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Namespace, Owner, Urls, place
from genesis_cache.cli.output import COULD_NOT, DONE, amount, complain, emit, lapse, table
from genesis_cache.cli.session import with_cache

_STATS = ("layer", "tier", "entries", "size", "capacity", "full", "up")
_EXPLANATION = ("layer", "tier", "held", "fresh", "age", "ttl left", "size", "priority", "tags")


def stats(urls: Urls = None, as_json: Json = False) -> int:
    """Show what every tier holds and does; exit code 1 if one is down."""

    async def work(cache: Cache) -> dict[str, Any]:
        return cache.analytics()

    figures = with_cache(place(urls), work)
    emit(figures, as_json, lambda console: _show_stats(console, figures))
    down = [layer for layer, row in figures["layer_statistics"].items() if row["up"] is not True]
    if down:
        complain(f"down: {', '.join(down)}")
    return COULD_NOT if down else DONE


def explain(
    key: Annotated[str, typer.Argument(help="The key.", metavar="KEY")],
    namespace: Namespace = None,
    owner: Owner = None,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Say which tiers hold a key, how fresh it is and why it missed; exit code 1 if none holds it."""

    async def work(cache: Cache) -> dict[str, Any]:
        return (await cache.explain(key)).to_dict()

    explanation = with_cache(place(urls, namespace, owner), work)
    emit(explanation, as_json, lambda console: _show_explanation(console, explanation))
    return DONE if any(tier["present"] for tier in explanation["tiers"]) else COULD_NOT


def _show_stats(console: Console, figures: dict[str, Any]) -> None:
    """What every process sees alike; hits and misses are of this process, which has asked for nothing."""
    rows = []
    for layer, row in figures["layer_statistics"].items():
        size, capacity = row["size_bytes"], row["capacity_bytes"]
        full = f"{size / capacity:.0%}" if capacity else None
        up = True if row["up"] is True else row.get("reason") or False
        rows.append((layer, row.get("tier"), row["entries"], amount(size), amount(capacity), full, up))
    console.print(table(_STATS, rows))
    for advice in figures["recommendations"]:
        console.print(advice if isinstance(advice, str) else f"{advice['title']}: {advice['action']}", markup=False)


def _show_explanation(console: Console, explanation: dict[str, Any]) -> None:
    console.print(f"{explanation['key']}: {explanation['verdict']}. {explanation['reason']}", markup=False)
    rows = []
    for tier in explanation["tiers"]:
        held = tier["present"]
        left = "for ever" if tier["ttl_left"] is None and held else lapse(tier["ttl_left"])
        tags = ", ".join(tier["tags"]) or None
        where = (tier["layer"], tier["tier"], held, tier["fresh"] if held else None)
        rows.append((*where, lapse(tier["age"]), left, amount(tier["size_bytes"]), tier["priority"], tags))
    console.print(table(_EXPLANATION, rows))
