"""Spreading: an order by tag that gives the reloads time serves on what it reaches, and never beyond its deadline."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings, InvalidKey
from genesis_cache.coherence.floors import Floors, reach_of
from genesis_cache.coherence.spreading import MAX_SPREADS, Spread, spread_name, spread_of
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.testing.clock import FakeClock

KEYS = [f"product:{n}" for n in range(200)]


@pytest.fixture
def clock() -> FakeClock:
    """Time that passes when told."""
    return FakeClock()


@pytest_asyncio.fixture
async def pair(clock: FakeClock, tmp_path: Path) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two caches over one disk, each with a memory of its own, as two processes have."""
    settings = CacheSettings(
        cache_tiers=("memory", "disk"), cache_disk_path=str(tmp_path / "disk"), cache_far_budget_ms=60_000
    )
    async with Cache(settings, clock=clock) as here, Cache(settings, clock=clock) as there:
        yield here, there


class Shop:
    """A source whose products have a generation, and that counts when it was asked for which."""

    def __init__(self, clock: FakeClock) -> None:
        self.generation = 1
        self.asked: list[tuple[float, str]] = []
        self._clock = clock

    async def ask(self, cache: Cache, key: str) -> object:
        """The product as the cache has it."""

        async def load() -> int:
            self.asked.append((self._clock.now(), key))
            return self.generation

        return await cache.get_or_set(key, load, ttl=3600, tags=["products"])


async def test_reloads_are_spread_and_none_is_later_than_the_deadline(
    pair: tuple[Cache, Cache], clock: FakeClock
) -> None:
    """Under traffic in two processes each key is loaded once, at its own moment, and nobody ever waits for it."""
    shop = Shop(clock)
    for cache in pair:
        for key in KEYS:
            await shop.ask(cache, key)
    assert len(shop.asked) == len(KEYS)
    shop.asked.clear()
    shop.generation = 2
    assert await pair[0].delete_by_tag("products", spread="10s")
    misses = [cache.analytics()["namespaces"]["(root)"]["misses"] for cache in pair]
    seen: dict[str, list[object]] = {key: [] for key in KEYS}
    began = clock.now()
    while clock.now() < began + 9.9:
        for cache in pair:
            for key in KEYS:
                seen[key].append(await shop.ask(cache, key))
            await cache._engine.background.drain()
        clock.advance(0.1)
    assert [cache.analytics()["namespaces"]["(root)"]["misses"] for cache in pair] == misses
    clock.advance(0.2)
    for cache in pair:
        assert {await shop.ask(cache, key) for key in KEYS} == {2}
        assert await cache.get_many(KEYS) == dict.fromkeys(KEYS, 2)
    assert Counter(key for _, key in shop.asked) == Counter(KEYS)
    by_second = Counter(int(at - began) for at, _ in shop.asked)
    assert max(by_second.values()) <= len(KEYS) / 5 * 1.6  # what is popular has its turn in the first five seconds
    assert {1, 2} == {value for values in seen.values() for value in values}


async def test_what_nobody_asks_for_is_dead_by_the_deadline(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """Without traffic nothing is loaded, and after the deadline no process and no tier serves the old value."""
    shop = Shop(clock)
    for cache in pair:
        await shop.ask(cache, "product:1")
        await cache.set("other", 7, ttl=3600, tags=["others"])
    await pair[1].delete_by_tag("products", spread=5)
    await pair[0].get("other")  # a process that does not listen cannot know when it was given, and serves no more
    clock.advance(1)
    assert [await cache.get("product:1") for cache in pair] == [1, 1]
    clock.advance(4.5)
    assert [await cache.get("product:1", allow_stale=True) for cache in pair] == [None, None]
    assert [await cache.get("other") for cache in pair] == [7, 7]
    assert len(shop.asked) == 1


async def test_who_hears_late_is_not_late(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """A process that did not look for a while counts from its last look: it serves nothing beyond the deadline."""
    shop = Shop(clock)
    for cache in pair:
        await shop.ask(cache, "product:1")
    await pair[1].delete_by_tag("products", spread=5)
    clock.advance(3)
    assert await pair[0].get("product:1") == 1
    clock.advance(2.1)
    assert await pair[0].get("product:1", allow_stale=True) is None
    await shop.ask(pair[0], "product:2")
    await pair[1].delete_by_tag("products", spread=5)
    clock.advance(60)
    assert await pair[0].get("product:2", allow_stale=True) is None


async def test_what_was_stored_before_is_reached_wherever_it_comes_from(
    pair: tuple[Cache, Cache], clock: FakeClock
) -> None:
    """A copy that is brought up from the disk meanwhile has the same deadline, and is no answer to a refresh."""
    shop = Shop(clock)
    await shop.ask(pair[0], "product:1")
    await pair[0].delete_by_tag("products", spread=10)
    clock.advance(0.5)
    shop.generation = 2
    assert await shop.ask(pair[1], "product:1") == 1
    clock.advance(9.499)  # its turn is drawn anew in each run, but has come by now
    assert await shop.ask(pair[1], "product:1") == 1
    await pair[1]._engine.background.drain()
    assert await pair[1].get("product:1") == 2
    await pair[0].clear(tier="memory")
    assert await pair[0].get("product:1") == 2


async def test_an_order_without_delay_beats_one_that_spreads(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """Whoever needs it at once says so, before, during or after a purge that spreads."""
    for cache in pair:
        await cache.set("k", "old", ttl=3600, tags=["t"])
        await cache.get("k")
    await pair[0].delete_by_tag("t", spread=60)
    clock.advance(1)
    assert await pair[1].get("k") == "old"
    await pair[1].delete_by_tag("t")
    clock.advance(0.02)
    assert [await cache.get("k") for cache in pair] == [None, None]


async def test_a_process_that_starts_meanwhile_takes_it_as_an_order_without_delay(
    pair: tuple[Cache, Cache], clock: FakeClock
) -> None:
    """Who has not heard when it was given cannot tell how long it may still serve, so it does not."""
    await pair[0].set("k", "old", ttl=3600, tags=["t"])
    await pair[0].delete_by_tag("t", spread=60)
    async with Cache(pair[0].settings, clock=clock) as new:
        assert await new.get("k") is None
    assert await pair[0].get("k") == "old"


async def test_a_spread_is_a_length_up_to_a_day(pair: tuple[Cache, Cache]) -> None:
    """What is no such length is refused before anything is done, and so is a tag that reads like an order."""
    for wrong in (0, -1, "soon", "2d"):
        with pytest.raises(ValueError, match="spread"):
            await pair[0].delete_by_tag("t", spread=wrong)
    with pytest.raises(InvalidKey, match=r"U\+001D"):
        await pair[0].delete_by_tag(spread_name("t", 5))


def test_floors_end_early_what_would_be_too_many() -> None:
    """No more orders are kept than there is room for: the oldest kills at once."""
    floors, reach = Floors(), reach_of("", None)
    for n in range(MAX_SPREADS + 1):
        floors.spread(Notice(Kind.TAG, "", None, spread_name(f"t{n}", 60), seq=n + 1), 0.0)
    assert floors.killer(reach, "k", ("t0",), 0) == 1
    assert floors.killer(reach, "k", ("t1",), 0) == 0
    floors.end_spreads(60.0)
    assert floors.killer(reach, "k", ("t1",), 0) == 2
    floors.spread(Notice(Kind.TAG, "", None, spread_name("t1", 60), seq=2), 61.0)  # told once more
    assert not floors.spreads


def test_names_in_the_log() -> None:
    """What a log calls such an order is read back; anything else is an order without delay."""
    assert spread_of(Notice(Kind.TAG, "", None, spread_name("a:\x1d:b", 2.5))) == ("a:\x1d:b", 2.5)
    for name in ("t", "\x1d", "\x1d5", "\x1dx\x1dt", "\x1d5\x1d"):
        assert spread_of(Notice(Kind.TAG, "", None, name)) is None
    assert spread_of(Notice(Kind.KEY, "", None, spread_name("t", 5))) is None


def test_what_is_popular_has_its_turn_first() -> None:
    """Entries that were hit lately are loaded anew in the first half of the time, the others after them."""
    spread = Spread(("", None), "t", 7, 100.0, 110.0)
    hot = [spread.due(key, is_popular=True) for key in KEYS]
    cold = [spread.due(key, is_popular=False) for key in KEYS]
    assert 100.0 <= min(hot) < 101.0
    assert 104.0 < max(hot) < 105.0 <= min(cold) < 106.0
    assert 109.0 < max(cold) < 110.0
