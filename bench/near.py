"""Near hits: what it costs to find a value in memory, by look-up and by decorated function, beside the peers."""

# ruff: noqa: PLC0415  # a peer is imported where it is measured, so that a missing one leaves the others

import asyncio
import tempfile
from itertools import repeat
from pathlib import Path
from time import perf_counter

from bench import near_peers
from bench.report import Section, Table, Verdict

from genesis_cache.cache import Cache
from genesis_cache.cli.measure import Batch, Case, Timing, awaited, awaited_over, awaited_with, called_with, measure

FLOOR = "await an empty coroutine"
OURS = "**genesis_cache**"
KEY = near_peers.KEY
MANY = 5_000

GET_MOST = 3.5  # times the floor
DECORATED_MOST = 4.5
PEERS_LEAST = 10.0  # times faster than each of these
PEERS_TO_BEAT = ("cashews", "aiocache", "fastapi-cache2")


def section(*, quick: bool) -> Section:
    """The three tables and their verdicts."""
    return asyncio.run(_section(3 if quick else 11, 0.002 if quick else 0.02))


async def _section(rounds: int, batch_s: float) -> Section:
    async with Cache.from_url("memory://") as cache:
        await cache.set(KEY, {"id": 7})
        lookups = [Case(FLOOR, awaited(_empty)), Case(f"{OURS} await cache.get", awaited_with(cache.get, KEY))]
        lookups += [Case(f"{OURS} cache.peek (sync)", called_with(cache.peek, KEY)), *await near_peers.lookups()]
        decorated = [Case(FLOOR, awaited(_empty)), *await _decorated(cache), *await near_peers.decorated()]
        first = await measure(lookups, rounds=rounds, batch_seconds=batch_s)
        second = await measure(decorated, rounds=rounds, batch_seconds=batch_s)
        third = await measure(await _many(cache), rounds=rounds, batch_seconds=batch_s)
    fourth = await _plain(rounds, batch_s)
    return Section(
        "Near hits",
        "A value that is in memory, found again and again. Ours has a time to live, a bound in bytes, single flight, "
        "tags and counters on. Peers marked (sync) answer without await.",
        [
            _table("Look-ups", first, f"{OURS} await cache.get"),
            _table("Decorated async functions", second, _slowest(second).name),
            _table(f"{MANY:,} keys, each in turn", third, f"{OURS} template, tagged"),
            _table("Without an event loop", fourth, fourth[-1].name),
        ],
        [
            *_verdicts("near hit, `await cache.get(k)`", GET_MOST, first, first[1], PEERS_TO_BEAT[:2]),
            *_verdicts(
                "near hit, decorated, the slowest form", DECORATED_MOST, second, _slowest(second), PEERS_TO_BEAT
            ),
        ],
    )


async def _empty() -> None:
    """The floor: what awaiting anything at all costs."""


async def _empty_of_one(_argument: int) -> None:
    """The floor where there is an argument."""


async def _decorated(cache: Cache) -> list[Case]:
    @cache.cached("int:{user_id}", ttl="1h")
    async def by_int(user_id: int) -> int:
        return user_id

    @cache.cached("str:{name}", ttl="1h")
    async def by_str(name: str) -> str:
        return name

    @cache.cached("tagged:{user_id}", ttl="1h", tags=["user:{user_id}"])
    async def tagged(user_id: int) -> int:
        return user_id

    @cache.cached(ttl="1h")
    async def untemplated(user_id: int) -> int:
        return user_id

    cases = [
        Case(f"{OURS} template, int", awaited_with(by_int, 7)),
        Case(f"{OURS} template, str", awaited_with(by_str, "seven")),
        Case(f"{OURS} template, tagged", awaited_with(tagged, 7)),
        Case(f"{OURS} no template", awaited_with(untemplated, 7)),
        Case(f"{OURS} template, keyword call", _by_keyword(by_int)),
    ]
    for case in cases:
        await case.batch(1)
    return cases


async def _many(cache: Cache) -> list[Case]:
    """Nothing that was remembered of the last call helps with the next."""
    numbers = list(range(MANY))
    keys = [f"many:{number}" for number in numbers]

    @cache.cached("many:{user_id}", ttl="1h", tags=["user:{user_id}"])
    async def tagged(user_id: int) -> int:
        return user_id

    for number in numbers:
        await tagged(number)
    return [
        Case(FLOOR, awaited_over(_empty_of_one, numbers)),
        Case(f"{OURS} await cache.get", awaited_over(cache.get, keys)),
        Case(f"{OURS} template, tagged", awaited_over(tagged, numbers)),
        *await near_peers.many(numbers),
    ]


def _by_keyword(function: object) -> Batch:
    async def batch(times: int) -> float:
        began = perf_counter()
        for _ in repeat(None, times):
            await function(user_id=7)  # type: ignore[operator]  # a decorated function of user_id
        return perf_counter() - began

    return batch


async def _plain(rounds: int, batch_s: float) -> list[Timing]:
    with tempfile.TemporaryDirectory(prefix="genesis-cache-bench-") as folder:
        cache = Cache.from_url("memory://")
        blocking = cache.blocking()
        blocking.set(KEY, 7)

        @cache.cached("plain:{number}", ttl="1h")
        def plain(number: int) -> int:
            return number

        cases = [*await near_peers.plain(), *_diskcache(folder)]
        cases.append(Case(f"{OURS} BlockingCache.get", called_with(blocking.get, KEY)))
        cases.append(Case(f"{OURS} decorated plain function", called_with(plain, 7)))
        # A plain function that loads blocks, so the first call is made where no loop runs.
        await asyncio.to_thread(plain, 7)
        timings = await measure(cases, rounds=rounds, batch_seconds=batch_s)
        await asyncio.to_thread(blocking.close)
        return timings


def _diskcache(folder: str) -> list[Case]:
    try:
        from diskcache import Cache as DiskCache
    except ImportError:
        return []
    function = DiskCache(str(Path(folder) / "diskcache")).memoize()(near_peers.plain_number)
    return [Case("diskcache @memoize", called_with(function, 7))]


def _slowest(timings: list[Timing]) -> Timing:
    return max((timing for timing in timings if timing.name.startswith(OURS)), key=lambda timing: timing.ns)


def _table(title: str, timings: list[Timing], ours: str) -> Table:
    floor = timings[0].ns
    mine = next(timing.ns for timing in timings if timing.name == ours)
    rows = [[t.name, f"{t.ns:,.0f}", f"{t.ns / floor:.2f}", f"{t.ns / mine:.2f}"] for t in timings]
    return Table(title, ["case", "ns", f"x {timings[0].name}", f"x {ours.replace('*', '')}"], rows)


def _verdicts(row: str, most: float, timings: list[Timing], ours: Timing, peers: tuple[str, ...]) -> list[Verdict]:
    ratio = ours.ns / timings[0].ns
    told = [Verdict(row, f"within {most} x an empty coroutine", f"{ratio:.2f} x", ratio <= most)]
    for peer in peers:
        slowness = [timing.ns / ours.ns for timing in timings if timing.name.startswith(peer)]
        if slowness:
            least = min(slowness)
            told.append(Verdict(row, f"{PEERS_LEAST:.0f} x faster than {peer}", f"{least:.1f} x", least >= PEERS_LEAST))
    return told
