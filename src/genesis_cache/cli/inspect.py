"""Commands that look and change nothing: stats, explain."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

from typing import Annotated, Any

import typer
from rich.console import Console

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Namespace, Owner, Urls, place
from genesis_cache.cli.output import COULD_NOT, DONE, complain, emit, table
from genesis_cache.cli.session import with_cache

_LAYER_COLUMNS = ("entries", "size_bytes", "capacity_bytes", "hits", "misses", "p50_ms", "p99_ms", "up")
_TIER_COLUMNS = ("layer", "tier", "present", "fresh", "age", "ttl_left", "size_bytes", "priority", "tags")


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
    layers = figures["layer_statistics"]
    rows = [(_named(layer, row), *(row.get(name) for name in _LAYER_COLUMNS)) for layer, row in layers.items()]
    console.print(table(("layer", *_LAYER_COLUMNS), rows))
    console.print(table(("in this process", ""), figures["global_statistics"].items()))
    for advice in figures.get("recommendations", ()):
        console.print(advice if isinstance(advice, str) else advice.get("title", advice), markup=False)


def _show_explanation(console: Console, explanation: dict[str, Any]) -> None:
    console.print(f"{explanation['key']}: {explanation['verdict']}. {explanation['reason']}", markup=False)
    rows = [tuple(_told(tier.get(name)) for name in _TIER_COLUMNS) for tier in explanation["tiers"]]
    console.print(table(_TIER_COLUMNS, rows))


def _named(layer: str, row: dict[str, Any]) -> str:
    return f"{layer} {row['tier']}" if "tier" in row else layer


def _told(value: object) -> object:
    return ", ".join(map(str, value)) or None if isinstance(value, list | tuple | set | frozenset) else value
