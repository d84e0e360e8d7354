"""What it costs to be watched: a scrape with a million entries held, and near hits while scrapes go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

from bench.report import Section, Table, Verdict
from starlette.types import ASGIApp, Message

from genesis_cache.cache import Cache
from genesis_cache.web import app

HELD = 1_000_000
SCRAPES = 50
ROUNDS = 9
ROUND_S = 1.0
EVERY_S = 1.0  # between two scrapes of the busy cache; Prometheus asks every 15
BATCH = 2_000
MOST_MS = 20.0
MOST_COST = 0.1


def section(*, quick: bool) -> Section:
    """A scrape's time, and the rate of near hits with and without being scraped."""
    return asyncio.run(_section(*((10_000, 5, 1) if quick else (HELD, SCRAPES, ROUNDS))))


async def _section(held: int, scrapes: int, rounds: int) -> Section:
    async with Cache.from_url("memory://?max_mb=4096") as cache:
        for first in range(0, held, 10_000):
            await cache.set_many({f"key:{n}": n for n in range(first, first + 10_000)}, ttl=86_400)
        site = app(cache)
        await _scrape(site)  # the first imports what makes the text
        times = [await _scrape(site) for _ in range(scrapes)]
        alone, watched = [], []
        for n in range(rounds):
            for is_watched in (False, True) if n % 2 else (True, False):
                (watched if is_watched else alone).append(await _hits(cache, site if is_watched else None))
    cost = 1 - median(watched) / median(alone)
    median_ms, most_ms = median(times) * 1000, max(times) * 1000
    return Section(
        "Being watched",
        f"{held:,} entries in memory. A scrape is `GET /metrics` of `genesis_cache.web.app`, called over ASGI in the "
        f"same process. Near hits are `await cache.get` in batches of {BATCH:,}; while watched, a scrape every "
        f"{EVERY_S:g} s on the same event loop (Prometheus asks every 15 s). Rounds take turns.",
        [
            Table("", ["", "median ms", "longest ms"], [["a scrape", f"{median_ms:.2f}", f"{most_ms:.2f}"]]),
            Table(
                "",
                ["near hits", "a second", "x alone"],
                [
                    ["alone", f"{median(alone):,.0f}", "1.000"],
                    ["scraped every second", f"{median(watched):,.0f}", f"{1 - cost:.3f}"],
                ],
            ),
        ],
        [
            Verdict(f"scrape with {held:,} entries", "under 20 ms", f"{median_ms:.2f} ms", median_ms < MOST_MS),
            Verdict("collecting", "costs near hits under 10%", f"{cost:.1%}", cost < MOST_COST),
        ],
    )


async def _scrape(site: ASGIApp) -> float:
    """Seconds of one scrape; it has to answer 200 with the figures."""
    parts: list[bytes] = []
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/metrics", "raw_path": b"/metrics", "query_string": b"",
             "headers": [], "http_version": "1.1", "scheme": "http", "server": ("bench", 80), "client": ("c", 1),
             "root_path": "", "asgi": {"version": "3.0"}}  # fmt: skip
    began = perf_counter()
    await site(scope, receive, send)
    took = perf_counter() - began
    if status != 200 or b"cache_entries" not in b"".join(parts):
        msg = f"the scrape answered {status}"
        raise RuntimeError(msg)
    return took


async def _hits(cache: Cache, site: ASGIApp | None) -> float:
    """Near hits a second of processor time, of one key, with a scrape every so often."""
    get: Callable[[str], Awaitable[object]] = cache.get
    count, scrape_at = 0, perf_counter() + EVERY_S / 2
    began, used = perf_counter(), time.process_time()
    while perf_counter() < began + ROUND_S:
        for _ in range(BATCH):
            await get("key:7")
        count += BATCH
        if site is not None and perf_counter() >= scrape_at:
            await _scrape(site)
            scrape_at += EVERY_S
    return count / (time.process_time() - used)
