"""Commands that take a while: demo, simulate, bench."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genesis_cache.cli.benchmark import benchmark
from genesis_cache.cli.options import Json, Urls, place
from genesis_cache.cli.output import DONE, UsageError, emit, table
from genesis_cache.cli.session import with_cache
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
    as_json: Json = False,
) -> int:
    """Play recorded traffic on a slow service, without and with the cache, and compare."""
    language = CacheSettings.from_env().cache_language
    return run_demo(seconds=seconds, speed=speed, as_json=as_json, language=language)


def bench(urls: Urls = None, as_json: Json = False) -> int:
    """Measure this machine and these tiers: every price as a ratio to awaiting an empty coroutine."""
    with _progress("measuring") as (started, done):
        document = with_cache(place(urls), lambda cache: benchmark(cache, started=started, done=done))
    emit(document, as_json, lambda console: _show_bench(console, document))
    return DONE


def _show_bench(console: Console, document: dict[str, Any]) -> None:
    rows = [(row["case"], f"{row['ns_per_op']:,.0f}", f"{row['ratio']:,.1f}") for row in document["results"]]
    title = f"values of {document['value_bytes']:,} bytes, median of {document['rounds']} interleaved rounds"
    console.print(table(("case", "ns per operation", "ratio"), rows, title=title))


@contextmanager
def _progress(label: str) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    """Two functions, one to say how many steps there are and one to take a step, shown on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda total: progress.update(task, total=total), lambda: progress.advance(task)
