"""Renewing: scheduled refreshes go on while somebody asks, and those of several processes are one."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings
from genesis_cache.engine.loading import LoadContext
from genesis_cache.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes when told."""
    return FakeClock()


@pytest_asyncio.fixture
async def cache(clock: FakeClock) -> AsyncIterator[Cache]:
    """Memory only."""
    async with Cache(CacheSettings(cache_tiers=("memory",)), clock=clock) as cache:
        yield cache


@pytest_asyncio.fixture
async def pair(clock: FakeClock, tmp_path: Path) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two caches over one disk, each with a memory of its own, as two processes have."""
    settings = CacheSettings(
        cache_tiers=("memory", "disk"), cache_disk_path=str(tmp_path / "disk"), cache_far_budget_ms=60_000
    )
    async with Cache(settings, clock=clock) as here, Cache(settings, clock=clock) as there:
        yield here, there


class Counting:
    """A loader that tells how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        return self.calls


async def tick(*caches: Cache) -> None:
    """Let the schedules do what is due, and wait for it."""
    for cache in caches:
        cache._engine.reading.renewing.tick()
        await cache._engine.background.drain()


async def test_a_scheduled_refresh_stops_when_nobody_asks(cache: Cache, clock: FakeClock) -> None:
    """Every interval one load behind, for as long as somebody asked in the last one; nobody waits, and then it ends."""
    load = Counting()
    assert await cache.get_or_set("k", load, ttl=100, refresh_every=10) == 1
    for asked in range(2, 6):
        clock.advance(10)
        await tick(cache)
        assert load.calls == asked
        assert await cache.get("k") == asked  # a plain hit counts as asking
    clock.advance(10)
    await tick(cache)
    assert load.calls == 6
    for _ in range(5):
        clock.advance(10)
        await tick(cache)
    assert load.calls == 6
    assert len(cache._engine.reading.renewing) == 0
    assert await cache.get_or_set("k", load, ttl=100, refresh_every=10) == 6
    assert len(cache._engine.reading.renewing) == 1


async def test_the_interval_asked_for_last_counts(cache: Cache, clock: FakeClock) -> None:
    """Who asks for a shorter interval gets it from now on, and need not wait for the end of the longer one."""
    load = Counting()
    assert await cache.get_or_set("k", load, ttl=1000, refresh_every=100) == 1
    assert await cache.get_or_set("k", load, ttl=1000, refresh_every=10) == 1
    for expected in (2, 3):
        clock.advance(10)
        await tick(cache)
        assert await cache.get_or_set("k", load, ttl=1000, refresh_every=10) == expected


async def test_a_schedule_wakes_by_itself() -> None:
    """The loads come without a call that waits for them, on the loop that runs."""
    load = Counting()
    async with Cache(CacheSettings(cache_tiers=("memory",))) as cache, asyncio.timeout(60):
        while load.calls < 3:
            await cache.get_or_set("k", load, ttl=1000, refresh_every=0.02)
            await asyncio.sleep(0.005)


async def test_a_decorated_function_is_renewed_by_its_hits(cache: Cache, clock: FakeClock) -> None:
    """A hit in the wrapper counts as asking, though it goes through nothing of the engine."""
    calls = 0

    @cache.cached("n:{n}", ttl=100, refresh_every=10)
    async def number(n: int) -> int:
        nonlocal calls
        calls += 1
        return n * calls

    assert await number(1) == 1
    for expected in (2, 3, 4):
        clock.advance(10)
        await tick(cache)
        assert await number(1) == expected


async def test_two_processes_renew_a_key_once(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """Where two have the same key on their schedules, one loads and the other takes over what was stored."""
    load = Counting()
    for cache in pair:
        assert await cache.get_or_set("k", load, ttl=100, refresh_every=10) == 1
    for expected in (2, 3, 4):
        clock.advance(10)
        await tick(*pair)
        assert [await cache.get("k") for cache in pair] == [expected, expected]
    assert load.calls == 4


async def test_a_key_is_renewed_where_there_is_no_memory(clock: FakeClock, tmp_path: Path) -> None:
    """With far tiers alone the calls that name the interval are what counts as asking."""
    load = Counting()
    settings = CacheSettings(cache_tiers=("disk",), cache_disk_path=str(tmp_path / "disk"), cache_far_budget_ms=60_000)
    async with Cache(settings, clock=clock) as cache:
        for expected in (1, 2, 3):
            assert await cache.get_or_set("k", load, ttl=100, refresh_every=10) == expected
            clock.advance(10)
            await tick(cache)
        for _ in range(3):
            clock.advance(10)
            await tick(cache)
        assert load.calls == 4


async def test_a_failing_renewal_leaves_the_value(cache: Cache, clock: FakeClock) -> None:
    """A load that fails behind harms nobody, and the next interval tries again."""
    fails = False

    async def load() -> str:
        if fails:
            raise ConnectionError("down")
        return "value"

    options = {"ttl": 100, "refresh_every": 10, "retry_after": 1}
    await cache.get_or_set("k", load, **options)
    fails = True
    clock.advance(10)
    await tick(cache)
    assert await cache.get_or_set("k", load, **options) == "value"
    assert len(cache._engine.reading.renewing) == 1


async def test_a_cache_that_was_never_closed_can_be_let_go() -> None:
    """A schedule holds no cache alive."""
    cache = Cache(CacheSettings(cache_tiers=("memory",)))
    await cache.get_or_set("k", lambda: 1, ttl=100, refresh_every=30)
    engine = weakref.ref(cache._engine)
    cache._engine.background._timer.cancel()  # type: ignore[union-attr]  # the clean-up's own
    del cache
    await asyncio.sleep(0)
    gc.collect()
    assert engine() is None


async def test_refreshing_ahead_in_two_processes_is_one_load(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """The process whose refresh comes second finds the first one's value, and asks the source nothing."""
    load = Counting()
    options = {"ttl": 100, "refresh_ahead": 0.5}
    for cache in pair:
        assert await cache.get_or_set("k", load, **options) == 1
    clock.advance(60)
    for cache in pair:
        assert await cache.get_or_set("k", load, **options) == 1
        await cache._engine.background.drain()
    assert [await cache.get("k") for cache in pair] == [2, 2]
    assert load.calls == 2


async def test_unchanged_in_one_process_spares_the_others(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """After not_modified() in one process no other asks the source: each takes over the renewed times."""
    seen: list[object] = []

    async def load(ctx: LoadContext) -> object:
        seen.append(ctx.etag)
        if ctx.etag == "v1":
            return ctx.not_modified()
        ctx.etag = "v1"
        return "large"

    options = {"ttl": 10, "stale_while_revalidate": 1000}
    for cache in pair:
        assert await cache.get_or_set("k", load, **options) == "large"
    assert seen == [None]
    for round_ in range(1, 4):
        clock.advance(11)
        for cache in pair:
            assert await cache.get_or_set("k", load, **options) == "large"
            await cache._engine.background.drain()
        assert seen == [None] + ["v1"] * round_
        assert [await cache.get("k") for cache in pair] == ["large", "large"]
    assert pair[0].analytics()["namespaces"]["(root)"]["not_modified"] == 3


async def test_to_ask_does_not_count_as_the_length_of_a_load(cache: Cache, clock: FakeClock) -> None:
    """After a quick "not modified" the next refresh still begins early enough for a whole load."""
    seen: list[float] = []

    async def load(ctx: LoadContext) -> object:
        if ctx.stale_value == "value":
            return ctx.not_modified()
        await asyncio.sleep(0.02)
        return "value"

    options = {"ttl": 60, "early_refresh": 1, "stale_if_error": 60}
    for _ in range(2):
        assert await cache.get_or_set("k", load, **options) == "value"
        entry = cache._engine.core.memory.get(0, "k")  # type: ignore[union-attr]  # it has memory
        assert entry is not None
        assert entry.extra is not None
        seen.append(entry.extra.cost)
        clock.advance(61)
    assert seen[1] == seen[0] >= 0.02


async def test_a_busy_key_never_expires_under_traffic(cache: Cache, clock: FakeClock) -> None:
    """With early_refresh whoever asks all the time never waits: each load begins before the ttl ends."""
    load = Counting()
    options = {"ttl": 60, "early_refresh": 1}

    async def ask() -> None:
        await cache.get_or_set("k", load, **options)
        entry = cache._engine.core.memory.get(0, "k")  # type: ignore[union-attr]  # it has memory
        assert entry is not None
        assert entry.extra is not None
        assert entry.until - entry.extra.refresh_at >= entry.extra.cost > 0

    await ask()
    loads, waited = load.calls, cache.analytics()["namespaces"]["(root)"]["misses"]
    for _ in range(10):
        entry = cache._engine.core.memory.get(0, "k")  # type: ignore[union-attr]  # as above
        assert entry is not None
        assert entry.extra is not None
        clock.advance(entry.extra.refresh_at - clock.now() + 1e-6)
        assert clock.now() < entry.until
        await ask()
        await cache._engine.background.drain()
        loads += 1
        assert load.calls == loads
    assert cache.analytics()["namespaces"]["(root)"]["misses"] == waited
    assert cache.analytics()["namespaces"]["(root)"]["refreshes"] == 10


async def test_many_keys_are_refreshed_ahead_in_one_batch(cache: Cache, clock: FakeClock) -> None:
    """get_or_set_many refreshes what is due behind, together, and serves it meanwhile."""
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        return dict.fromkeys(keys, len(asked))

    options = {"ttl": 100, "refresh_ahead": 0.5}
    await cache.get_or_set_many(["a", "b"], load, **options)
    clock.advance(60)
    await cache.set("c", 0, ttl=100)
    assert await cache.get_or_set_many(["a", "b", "c"], load, **options) == {"a": 1, "b": 1, "c": 0}
    await cache._engine.background.drain()
    assert asked == [["a", "b"], ["a", "b"]]
    assert await cache.get_many(["a", "b"]) == {"a": 2, "b": 2}


async def test_a_short_lived_event_loop_does_not_take_the_schedule_with_it() -> None:
    """Keys are refreshed on, though another event loop has asked for one of its own meanwhile, and has ended."""
    async with Cache.from_url("memory://") as cache:
        loads: list[str] = []

        async def load() -> int:
            loads.append("lasting")
            return len(loads)

        async def short() -> int:
            return 0

        await cache.get_or_set("lasting", load, ttl=1000, refresh_every=0.01)
        await asyncio.to_thread(lambda: asyncio.run(cache.get_or_set("short", short, ttl=1000, refresh_every=0.01)))
        known = len(loads)
        async with asyncio.timeout(20):
            while len(loads) < known + 3:
                await cache.get("lasting")
                await asyncio.sleep(0.001)
