"""Commands that take a while: demo, simulate, bench."""

# ruff: noqa: FBT002  # typer makes options of parameters and passes them by name

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from genesis_cache.cli.benchmark import benchmark
from genesis_cache.cli.options import Json, Urls, place
from genesis_cache.cli.output import DONE, UsageError, emit, table
from genesis_cache.cli.session import with_cache
from genesis_cache.demo.page import HOST, Page
from genesis_cache.demo.run import run as run_demo
from genesis_cache.model.settings import CacheSettings
from genesis_cache.simulator.replay import simulate as replay


def demo(
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="End by itself after about so long; else serve until stopped.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option("--speed", help="Divide the backend's waits by this; 1 is real time.")
    ] = None,
    with_redis: Annotated[
        bool, typer.Option("--redis", help="Over Redis: that of REDIS_URL, else a server of its own.")
    ] = False,
    with_database: Annotated[
        bool, typer.Option("--database", help="Over PostgreSQL: that of DATABASE_URL, else a server of its own.")
    ] = False,
    host: Annotated[str, typer.Option("--host", help="The dashboard's address.")] = HOST,
    port: Annotated[int, typer.Option("--port", help="Its port; 0: any that is free.", min=0, max=65535)] = 0,
    as_json: Json = False,
) -> int:
    """Play recorded traffic on a slow service, without and with the cache, and compare; see it on the dashboard."""
    language = CacheSettings.from_env().cache_language
    servers = [kind for kind, wanted in (("redis", with_redis), ("database", with_database)) if wanted]
    return run_demo(
        seconds=seconds, speed=speed, servers=servers, as_json=as_json, language=language, page=Page(host, port)
    )


def simulate(
    trace: Annotated[Path, typer.Argument(help="Text, a key (and size) a line; plain, .gz, .xz.", metavar="TRACE")],
    capacity: Annotated[
        int | None, typer.Option("--capacity", help="Entries held; by default a tenth of the different keys.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option("--max-bytes", help="Bytes held, for a trace with sizes.")] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", help="ADAPTIVE, LRU, LFU, S3FIFO, TINYLFU or OPT; repeatable.", metavar="NAME"),
    ] = None,
    prefetch: Annotated[bool, typer.Option("--prefetch", help="With prefetching.")] = False,
    as_json: Json = False,
) -> int:
    """Replay a trace through the real memory tier and tell the hit ratio of each policy."""
    if prefetch:
        raise UsageError("--prefetch is not built yet: leave it out")
    if capacity is not None and max_bytes is not None:
        raise UsageError("--capacity and --max-bytes are two ways to say how much is held: give one of them")
    chosen = [name.upper() for name in policies or ["ADAPTIVE"]]
    try:
        with _progress("replaying") as report:
            document = replay(
                trace,
                capacity=capacity,
                max_bytes=max_bytes,
                policies=chosen,
                progress=lambda policy, done, total: report(chosen.index(policy) * total + done, len(chosen) * total),
            )
    except ValueError as error:
        raise UsageError(str(error)) from None
    emit(document, as_json, lambda console: _show_replay(console, document))
    return DONE


def bench(urls: Urls = None, as_json: Json = False) -> int:
    """Measure this machine and these tiers: every price as a ratio to awaiting an empty coroutine."""
    with _progress("measuring") as report:
        document = with_cache(place(urls), lambda cache: benchmark(cache, report))
    emit(document, as_json, lambda console: _show_bench(console, document))
    return DONE


def _show_replay(console: Console, document: dict[str, Any]) -> None:
    rows = [
        (row["policy"], row["capacity"], f"{row['hit_ratio']:.2%}", f"{row['ns_per_op']:,.0f}")
        for row in document["results"]
    ]
    title = f"{Path(document['trace']).name}, {document['requests']:,} requests"
    console.print(table(("policy", "capacity", "hit ratio", "ns per request"), rows, title=title))


def _show_bench(console: Console, document: dict[str, Any]) -> None:
    rows = [(row["case"], f"{row['ns_per_op']:,.0f}", f"{row['ratio']:,.1f}") for row in document["results"]]
    title = f"values of {document['value_bytes']:,} bytes, median of {document['rounds']} interleaved rounds"
    console.print(table(("case", "ns per operation", "ratio"), rows, title=title))


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told steps done and steps in all, shown on standard error where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
