"""Sampling: memory is compared with the shared tier behind everybody's back, and what is wrong in it is found."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.chaos.traffic import until

from genesis_cache import Cache, CacheSettings
from genesis_cache.insight.sampling import Sampling, names
from genesis_cache.model.entry import Entry
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.model.notice import Kind, Notice


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A real server of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two caches on one server, whose watch the test does itself."""
    name = f"sampling-{secrets.token_hex(4)}"
    said = {"cache_name": name, "cache_canary_interval": 600, "cache_far_budget_ms": 10_000}
    settings = CacheSettings().with_urls("memory://", url).with_overrides(**said)
    async with Cache(settings) as one, Cache(settings) as two:
        yield one, two


def sampling_of(cache: Cache) -> Sampling:
    """A walk through the cache's memory."""
    engine = cache._engine
    assert engine.core.authority is not None
    return Sampling(engine.core, engine.core.authority, engine.background)


async def found(cache: Cache) -> Sampling:
    """A walk that has come upon a difference."""
    sampling = sampling_of(cache)

    async def differs() -> bool:
        await sampling.round()
        return bool(samples(cache)["differed"])

    await until(differs, "the difference is found")
    return sampling


def samples(cache: Cache) -> dict[str, Any]:
    """What was found."""
    told: dict[str, Any] = cache.analytics()["coherence"]["samples"]
    return told


async def is_near(cache: Cache, value: str) -> bool:
    """Whether the value was read, and is in memory: a change heard in between takes it out again."""
    return bool(await cache.get("k") == value and cache.peek("k") == value)


def held(cache: Cache, key: str) -> Entry:
    """The entry in memory."""
    memory = cache._engine.core.memory
    assert memory is not None
    entry = memory.get(0, key)
    assert entry is not None
    return entry


async def test_equal_values_are_no_difference(pair: tuple[Cache, Cache]) -> None:
    """What memory and the shared tier agree on is compared and found the same; several rounds see all of it."""
    one, two = pair
    await one.set_many({f"k{n}": {"n": n, "set": {n, -n}} for n in range(20)})
    assert len(await two.get_many([f"k{n}" for n in range(20)])) == 20
    sampling = sampling_of(two)
    for _ in range(3):
        await sampling.round()
    assert samples(two)["compared"] == 24
    assert samples(two)["differed"] == 0


async def test_a_planted_inconsistency_is_found(pair: tuple[Cache, Cache]) -> None:
    """An old value that is served though a notice has named it is counted a second later, and goes on being counted."""
    one, two = pair
    await one.set("k", "old")
    await until(lambda: is_near(two, "old"), "it is near")
    old = held(two, "k")
    assert await one.set("k", "new")
    await until(lambda: two.peek("k") is None, "the change is heard")
    old.epoch = two._engine.core.floors.epoch  # as a process would whose protocol is broken
    two._engine.writing.admit(old)
    assert two.peek("k") == "old"
    sampling = await found(two)
    await sampling.round()  # it is under suspicion already
    assert samples(two)["differed"] == 1
    await until(lambda: samples(two)["inconsistent_after"]["1s"] == 1, "it is counted")
    assert samples(two)["behind_after"]["1s"] == 0
    assert two.measures().inconsistent == {"1s": 1, "10s": 0, "60s": 0}


async def test_a_refresh_elsewhere_leaves_others_behind(pair: tuple[Cache, Cache]) -> None:
    """A value refreshed by one process, which invalidates nothing, is told as behind where another holds the old."""
    one, two = pair
    await one.get_or_set("k", lambda: "old")
    await until(lambda: is_near(two, "old"), "it is near")
    await one.set("other", 1)
    assert await one.refresh("k", lambda: "new") == "new"
    walk = await found(two)
    await until(lambda: samples(two)["behind_after"]["1s"] == 1, "it is counted")
    assert len(walk._suspects) == 1  # and looked at again
    assert samples(two)["inconsistent_after"]["1s"] == 0
    assert two.peek("k") == "old"


async def test_what_was_taken_in_meanwhile_counts_as_nothing(pair: tuple[Cache, Cache]) -> None:
    """A difference that is gone at the second look was a change on its way."""
    one, two = pair
    await one.get_or_set("k", lambda: "old")
    await until(lambda: is_near(two, "old"), "it is near")
    await one.set("other", 1)
    await one.refresh("k", lambda: "new")
    sampling = await found(two)
    await two.delete("k")
    await until(lambda: not sampling._suspects, "the second look")
    assert samples(two)["behind_after"]["1s"] == 0


def test_which_notices_name_an_entry() -> None:
    """A key in its own namespace and of its owner; a tag, a pattern or a clear of a scope around it."""
    address = address_of(scope_of("c", "shop/eu", "user:1"), "k1")
    naming = [
        Notice(Kind.KEY, "shop/eu", "user:1", "k1"),
        Notice(Kind.TAG, "shop", None, "t"),
        Notice(Kind.PATTERN, "", "user:1", "k*"),
        Notice(Kind.CLEAR, "shop/eu", None, ""),
    ]
    others = [
        Notice(Kind.KEY, "shop/eu", None, "k1"),
        Notice(Kind.TAG, "shop", None, "u"),
        Notice(Kind.TAG, "sho", None, "t"),
        Notice(Kind.PATTERN, "shop/eu", "user:2", "k*"),
        Notice(Kind.PATTERN, "shop/eu", None, "j*"),
        Notice(Kind.CLEAR, "shop/eu/x", None, ""),
    ]
    assert all(names(notice, address, ("t",)) for notice in naming)
    assert not any(names(notice, address, ("t",)) for notice in others)
