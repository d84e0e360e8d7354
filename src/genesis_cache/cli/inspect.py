"""Commands that look and change nothing: stats, explain."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

import asyncio
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from genesis_cache.cache import Cache
from genesis_cache.cli.options import Json, Namespace, Owner, Urls, place
from genesis_cache.cli.output import COULD_NOT, DONE, amount, complain, emit, lapse, table
from genesis_cache.cli.session import with_cache

_STATS = ("layer", "tier", "entries", "size", "capacity", "full", "up")
_EXPLANATION = ("layer", "tier", "held", "fresh", "age", "ttl left", "size", "priority", "tags")


def stats(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until stopped.")] = False,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.1, max=3600)] = 2.0,
    times: Annotated[int | None, typer.Option("--times", help="Looks, then end.", min=1)] = None,
    urls: Urls = None,
    as_json: Json = False,
) -> int:
    """Show what every tier holds and does; exit code 1 if one is down."""
    looks = times if times is not None else (None if watch else 1)
    down: list[str] = []

    async def work(cache: Cache) -> None:
        if looks == 1:
            figures = cache.analytics()
            emit(figures, as_json, lambda console: _show_stats(console, figures))
        else:
            figures = await _watched(cache, every, looks, as_json=as_json)
        down[:] = [layer for layer, row in figures["layer_statistics"].items() if row["up"] is not True]

    try:
        with_cache(place(urls), work)
    except KeyboardInterrupt:
        if looks is not None:
            raise
        return DONE  # that is how a watch without end is ended
    if down:
        complain(f"down: {', '.join(down)}")
    return COULD_NOT if down else DONE


async def _watched(cache: Cache, every_s: float, looks: int | None, *, as_json: bool) -> dict[str, Any]:
    """The figures of the last look: a document a line, or a table that is drawn anew with what has changed."""
    console = Console(highlight=False)
    first: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False, transient=False) if not as_json else nullcontext() as live:
        for number in count(1):
            figures = cache.analytics()
            first = first or figures
            if live is None:
                emit(figures, as_json, _silent)
                sys.stdout.flush()
            else:
                live.update(_stats_table(figures, first), refresh=True)
            if number == looks:
                break
            await asyncio.sleep(every_s)
    return figures


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
    console.print(_stats_table(figures, None))
    for advice in figures["recommendations"]:
        console.print(advice if isinstance(advice, str) else f"{advice['title']}: {advice['action']}", markup=False)


def _stats_table(figures: dict[str, Any], first: dict[str, Any] | None) -> Table:
    """What every process sees alike; hits and misses are of this process, which has asked for nothing.

    ``first`` are the figures when the watch began: beside those of now stands what has come and gone since.
    """
    rows = []
    for layer, row in figures["layer_statistics"].items():
        size, capacity = row["size_bytes"], row["capacity_bytes"]
        full = f"{size / capacity:.0%}" if capacity else None
        up = True if row["up"] is True else row.get("reason") or False
        before = None if first is None else first["layer_statistics"].get(layer)
        since = () if before is None else (f"{row['entries'] - before['entries']:+,}",)
        rows.append((layer, row.get("tier"), row["entries"], *since, amount(size), amount(capacity), full, up))
    columns = _STATS if first is None else (*_STATS[:3], "since", *_STATS[3:])
    return table(columns, rows, title=None if first is None else f"{datetime.now(UTC).astimezone():%X}")


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


def _silent(_console: Console) -> None:
    """For a document that only `--json` shows."""
