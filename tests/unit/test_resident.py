"""Resident refresh: a hot key that another process has changed is in memory again before anybody asks for it."""

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.chaos.traffic import until

from genesis_cache import Cache, CacheSettings
from genesis_cache.engine.resident import BATCH, Resident

Pair = tuple[Cache, Cache]


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A real server of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    """Two processes' caches, of which the second refreshes what it holds."""
    said = {"cache_name": f"resident-{secrets.token_hex(4)}", "cache_far_budget_ms": 10_000}
    settings = CacheSettings().with_urls("memory://", url).with_overrides(**said)
    async with Cache(settings) as one, Cache(settings.with_overrides(cache_refresh_resident="on")) as two:
        yield one, two


def resident_of(cache: Cache) -> Resident:
    """What does it."""
    assert cache._engine.resident is not None
    return cache._engine.resident


async def heard(one: Cache, two: Cache) -> None:
    """The second has heard all that the first has changed."""
    await until(lambda: two.peek("none") or two._engine.hearing.heard_seq >= one._engine.core.floors.given, "heard")


async def heat(cache: Cache, *keys: str) -> None:
    """Have keys in memory, and used there."""
    for key in keys:
        await until(lambda: _near(cache, key), "it is near")  # noqa: B023  # awaited here
    for key in keys:
        cache.peek(key)  # the policy may have looked at it since


async def _near(cache: Cache, key: str) -> bool:
    return await cache.get(key) is not None and cache.peek(key) is not None


def held(cache: Cache, key: str) -> object:
    """What memory holds, without a read that would bring it."""
    memory = cache._engine.core.memory
    entry = None if memory is None else memory.get(0, key)
    return None if entry is None else entry.value


async def test_a_hot_key_comes_back_by_itself(pair: Pair) -> None:
    """Nobody reads it, and still the new value is in memory; a cold key and a deleted one stay away."""
    one, two = pair
    await one.set_many({"hot": 1, "cold": 1, "deleted": 1})
    await heard(one, two)
    await until(lambda: _near(two, "cold"), "it is near")
    await heat(two, "hot", "deleted")
    memory = two._engine.core.memory
    assert memory is not None
    entry = memory.get(0, "cold")
    assert entry is not None
    entry.mark = False
    await one.delete("deleted")
    await one.set_many({"cold": 2, "hot": 2})
    await until(lambda: held(two, "hot") == 2, "it has come back")
    assert two.peek("hot") == 2
    assert held(two, "cold") is None
    assert held(two, "deleted") is None
    assert resident_of(two).fetched == 1
    assert one._engine.resident is None


async def test_many_come_in_batches(pair: Pair) -> None:
    """No batch is larger than 128 keys, and all come in the end."""
    one, two = pair
    keys = [f"k{n}" for n in range(BATCH + 40)]
    await one.set_many(dict.fromkeys(keys, 1))
    await heard(one, two)
    await heat(two, *keys)
    lane = resident_of(two)._lane
    sizes: list[int] = []
    plain = lane.tier.get_many

    async def counted(addresses: object) -> object:
        sizes.append(len(addresses))  # type: ignore[arg-type]  # a sequence
        return await plain(addresses)  # type: ignore[arg-type]  # as above

    lane.tier.get_many = counted  # type: ignore[method-assign, assignment]  # to see how often it is asked
    await one.set_many(dict.fromkeys(keys, 2))
    await until(lambda: all(held(two, key) == 2 for key in keys), "all have come back")
    assert max(sizes) <= BATCH
    assert len(sizes) < BATCH


async def test_a_change_under_way_wins_over_a_fetch(pair: Pair) -> None:
    """A fetch that was overtaken by another change leaves nothing old in memory."""
    one, two = pair
    await one.set("k", 1)
    await heat(two, "k")
    for version in range(2, 12):
        await one.set("k", version)
        await heat(two, "k")
    await until(lambda: two.peek("k") == 11, "the last is there")
    await two._engine.background.drain()
    assert await two.get("k") == 11
