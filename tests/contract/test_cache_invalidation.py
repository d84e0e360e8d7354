"""Invalidation: what is deleted is gone everywhere at once, and no load that began before it brings it back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from genesis_cache import Cache, InvalidKey, LoaderTimeout

Kill = Callable[[Cache], Awaitable[object]]

KILLS: dict[str, Kill] = {
    "delete": lambda cache: cache.delete("k"),
    "tag": lambda cache: cache.delete_by_tag("t"),
    "learned tag": lambda cache: cache.delete_by_tag("learned"),
    "pattern": lambda cache: cache.delete_by_pattern("k*"),
    "clear": lambda cache: cache.clear(),
    "expire": lambda cache: cache.expire("k"),
    "set": lambda cache: cache.set("k", "set", tags=["t"]),
}


@pytest.fixture(params=list(KILLS))
def kill(request: pytest.FixtureRequest) -> Kill:
    """One way to invalidate after the other."""
    return KILLS[request.param]


class Learning:
    """A gated loader that adds a tag by its context."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: Any) -> str:
        ctx.tags.add("learned")
        self.begun.set()
        await self.go.wait()
        return self.value


async def expect_new(cache: Cache, house: Any, old: str) -> None:
    """No verb in any tier gives the old value any more."""
    for _ in range(2):
        assert await cache.get("k") != old
        assert cache.peek("k") != old
        assert (await cache.get_many(["k"])).get("k") != old
        assert await cache.get("k", allow_stale=True) != old
        house.forget_near(cache)
    assert await cache.get_or_set("k", lambda: "new") != old


async def test_it_beats_a_load_in_the_foreground(cache: Cache, house: Any, kill: Kill) -> None:
    """A load that began before is given to those who waited before, is not stored, and serves nobody after."""
    loader = Learning("old")
    early = asyncio.create_task(cache.get_or_set("k", loader, tags=["t"]))
    await loader.begun.wait()
    await kill(cache)
    late = asyncio.create_task(cache.get_or_set("k", lambda: "late", tags=["t"]))
    await asyncio.sleep(0.005)
    loader.go.set()
    assert await early in ("old", "set", "late")
    assert await late != "old"
    await expect_new(cache, house, "old")


async def test_it_beats_a_refresh_in_the_background(cache: Cache, house: Any, kill: Kill) -> None:
    """A background refresh that began before is not stored."""
    await cache.set("k", "first", ttl=10, stale_while_revalidate=100, tags=["t", "learned"])
    house.pass_time(11)
    loader = Learning("old")
    assert await cache.get_or_set("k", loader, ttl=10, stale_while_revalidate=100, tags=["t"]) == "first"
    await loader.begun.wait()
    await kill(cache)
    loader.go.set()
    await cache._engine.background.drain()
    await expect_new(cache, house, "old")


async def test_it_beats_a_load_that_outlived_its_callers(cache: Cache, house: Any, kill: Kill) -> None:
    """A load that goes on after soft_timeout or hard_timeout is not stored if it began before."""
    loader = Learning("old")
    with pytest.raises(LoaderTimeout):
        await cache.get_or_set("k", loader, hard_timeout=0.005, tags=["t"])
    await loader.begun.wait()
    await kill(cache)
    loader.go.set()
    await cache._engine.background.drain()
    await expect_new(cache, house, "old")


async def test_it_beats_a_bulk_load(cache: Cache, house: Any, kill: Kill) -> None:
    """A key of a bulk load that began before is not stored; the others are."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def load(keys: list[str]) -> dict[str, str]:
        begun.set()
        await go.wait()
        return dict.fromkeys(keys, "old")

    early = asyncio.create_task(cache.get_or_set_many(["k", "other"], load, tags=["t", "learned"]))
    await begun.wait()
    await kill(cache)
    late = asyncio.create_task(cache.get_or_set_many(["k"], lambda keys: dict.fromkeys(keys, "late"), tags=["t"]))
    await asyncio.sleep(0.005)
    go.set()
    await early
    assert (await late)["k"] != "old"
    await expect_new(cache, house, "old")


async def test_it_beats_a_refresh_that_was_asked_for(cache: Cache, house: Any, kill: Kill) -> None:
    """.refresh() of a decorated function that began before is not stored."""
    begun, go = asyncio.Event(), asyncio.Event()

    @cache.cached("k", tags=["t", "learned"])
    async def load() -> str:
        begun.set()
        await go.wait()
        return "old"

    early = asyncio.create_task(load.refresh())
    await begun.wait()
    await kill(cache)
    go.set()
    await early
    await expect_new(cache, house, "old")


async def test_it_beats_a_promotion(cache: Cache, house: Any, kill: Kill) -> None:
    """A value on its way up from a far tier is not kept near if it is invalidated meanwhile."""
    if not (house.far and house.near):
        return
    await cache.set("k", "old", tags=["t", "learned"])
    house.forget_near(cache)
    core = cache._engine.core
    lane = core.lanes[0]
    held = lane.get(cache._view.address("k"))
    held = await held if isinstance(held, Awaitable) else held
    assert held is not None
    envelope, go, begun = bytes(held), asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        begun.set()
        await go.wait()
        return envelope

    read, lane.get = lane.get, lambda _: asyncio.ensure_future(slow())
    reads = [asyncio.create_task(cache.get("k")), asyncio.create_task(cache.get_or_set("k", lambda: "loaded"))]
    await begun.wait()
    lane.get = read
    await kill(cache)
    go.set()
    await asyncio.gather(*reads)
    await expect_new(cache, house, "old")


async def test_waiters_from_before_a_tag_and_after_it(cache: Cache) -> None:
    """Who asked after the invalidation never gets the load from before it; one new load serves them all."""
    loader = Learning("old")
    early = [asyncio.create_task(cache.get_or_set("k", loader, tags=["t"])) for _ in range(3)]
    await loader.begun.wait()
    await cache.delete_by_tag("t")
    calls = []

    async def load() -> str:
        calls.append(1)
        await asyncio.sleep(0.002)
        return "new"

    late = [asyncio.create_task(cache.get_or_set("k", load, tags=["t"])) for _ in range(5)]
    await asyncio.sleep(0)
    loader.go.set()
    await asyncio.gather(*early)
    assert await asyncio.gather(*late) == ["new"] * 5
    assert len(calls) == 1
    assert await cache.get("k") == "new"


async def test_no_wait_for_a_load_that_was_outdated(cache: Cache) -> None:
    """After a delete the next caller loads at once, though an older load of the key still runs."""
    loader = Learning("old")
    early = asyncio.create_task(cache.get_or_set("k", loader))
    await loader.begun.wait()
    await cache.delete("k")
    assert await asyncio.wait_for(cache.get_or_set("k", lambda: "new"), 1) == "new"
    loader.go.set()
    await early
    assert await cache.get("k") == "new"


async def test_tags_kill_exactly_those_who_bear_them(cache: Cache, house: Any) -> None:
    """An entry dies with any of its tags; what is set afterwards lives, though it bears the same tag."""
    await cache.set("a", 1, tags=["x", "y"])
    await cache.set("b", 1, tags=["y"])
    await cache.set("c", 1, tags=["z"])
    await cache.set("d", 1)
    assert await cache.delete_by_tag("x", "unknown")
    assert sorted(await cache.get_many(["a", "b", "c", "d"])) == ["b", "c", "d"]
    await cache.set("a", 2, tags=["x"])
    assert await cache.get("a") == 2
    await cache.delete_by_tag("y", "z")
    house.forget_near(cache) if house.far else None
    assert sorted(await cache.get_many(["a", "b", "c", "d"])) == ["a", "d"]
    with pytest.raises(TypeError):
        await cache.delete_by_tag()


async def test_patterns(cache: Cache, house: Any) -> None:
    """A glob of * and ? kills the keys that match it whole, and no others."""
    keys = ["user:1", "user:12", "user:", "xuser:1", "user:1:profile", "User:1", "üser:1"]
    for pattern, killed in {
        "user:*": {"user:1", "user:12", "user:", "user:1:profile"},
        "user:?": {"user:1"},
        "*ser:1": {"user:1", "xuser:1", "User:1", "üser:1"},
        "*:*": set(keys),
        "user:1": {"user:1"},
        "nothing*": set(),
    }.items():
        await cache.set_many(dict.fromkeys(keys, 1))
        await cache.delete_by_pattern(pattern)
        assert set(keys) - set(await cache.get_many(keys)) == killed, pattern
        house.forget_near(cache) if house.far else None
        assert set(keys) - set(await cache.get_many(keys)) == killed, pattern
    for bad in ("x" * 129, "a*b*c*", "", 5):
        wrong: Any = bad
        with pytest.raises(InvalidKey):
            await cache.delete_by_pattern(wrong)


async def test_clear_kills_all_and_is_over_at_once(cache: Cache, house: Any) -> None:
    """After clear nothing from before is found in any tier, and new values are."""
    await cache.set_many({f"k{n}": n for n in range(100)}, ttl=None)
    await cache.clear()
    assert await cache.get_many([f"k{n}" for n in range(100)]) == {}
    await cache.set("k1", "new")
    house.forget_near(cache) if house.far else None
    assert await cache.get_many([f"k{n}" for n in range(100)]) == {"k1": "new"}


async def test_what_was_killed_frees_its_memory(cache: Cache, house: Any, settled: Any) -> None:
    """What a clear killed leaves memory by itself, though nobody asks for it."""
    if not house.near:
        return
    await cache.set_many({f"k{n}": n for n in range(100)})
    await cache.clear()
    await settled(lambda: len(cache._engine.core.memory) == 0)


async def test_restart_keeps_values_and_invalidations(house: Any) -> None:
    """What was stored is there after a restart; what was deleted before it, by any verb, stays dead."""
    if not house.far:
        return
    cache = house.cache()
    names = ["stays", "deleted", "tagged", "pattern:1"]
    await cache.set_many(dict.fromkeys(names, 1), ttl=None, tags=[])
    await cache.set("tagged", 1, tags=["t"], ttl=None)
    await cache.namespace("n").set("cleared", 1, ttl=None)
    await cache.owned_by("user:1").set("owned", 1, ttl=None)
    await cache.delete("deleted")
    await cache.delete_by_tag("t")
    await cache.delete_by_pattern("pattern:*")
    await cache.clear("n")
    await cache.owned_by("user:1").clear()
    await cache.close()
    again = house.cache()
    assert await again.get_many(names) == {"stays": 1}
    assert await again.namespace("n").get("cleared") is None
    assert await again.owned_by("user:1").get("owned") is None
    await again.set("tagged", 2, tags=["t"])
    assert await again.get("tagged") == 2


async def test_two_caches_on_one_place(house: Any) -> None:
    """What one cache changes by any verb another on the same place serves no more, as soon as it looks again."""
    if not house.far:
        return
    one, two = house.cache(), house.cache()
    kills: dict[str, Kill] = {
        "delete": lambda c: c.delete("k"),
        "overwrite": lambda c: c.set("k", "new"),
        "tag": lambda c: c.delete_by_tag("t"),
        "pattern": lambda c: c.delete_by_pattern("k"),
        "clear": lambda c: c.clear(),
        "expire": lambda c: c.expire("k"),
    }
    for name, kill in kills.items():
        await one.set("k", "old", tags=["t"])
        await one.namespace("n").set("k", "old")
        await house.hear()
        assert await two.get("k") == "old", name
        assert await two.get("k") == "old", name
        await kill(one)
        await house.hear()
        assert await two.get("k") == ("new" if name == "overwrite" else None), name
        assert await two.get_or_set("k", lambda: "loaded") != "old"
    await one.namespace("n").set("k", "old")
    await one.owned_by("o").set("k", "old")
    await house.hear()
    assert await two.namespace("n").get("k") == "old"
    assert await two.owned_by("o").get("k") == "old"
    await one.clear("n")
    await one.owned_by("o").delete("k")
    await house.hear()
    assert await two.namespace("n").get("k") is None
    assert await two.owned_by("o").get("k") is None


async def test_one_load_for_two_caches_on_one_place(house: Any) -> None:
    """With a shared tier two caches load a cold key once, and a refreshed one too."""
    if not house.far:
        return
    one, two = house.cache(), house.cache()
    calls = []

    async def load() -> str:
        calls.append(1)
        await asyncio.sleep(0.01)
        return f"load {len(calls)}"

    options = {"ttl": 10, "stale_while_revalidate": 60}
    assert (
        await asyncio.gather(*(cache.get_or_set("k", load, **options) for cache in (one, two, one, two)))
        == ["load 1"] * 4
    )
    house.pass_time(11)
    assert await one.get_or_set("k", load, **options) == "load 1"
    await one._engine.background.drain()
    assert await two.get_or_set("k", load, **options) in ("load 1", "load 2")
    await two._engine.background.drain()
    assert await two.get("k") == "load 2"
    assert len(calls) == 2
