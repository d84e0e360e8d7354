"""Views: namespaces and owners keep their entries apart, and secrets stay where they belong; over every line-up."""

from pathlib import Path
from typing import Any

import pytest

from genesis_cache import Cache, InvalidKey

CANARY = "c4n4ry-5ecret-value"


async def test_owners_never_see_each_other(cache: Cache) -> None:
    """One key is another entry for each owner and for nobody."""
    ana, bob = cache.owned_by("user:ana"), cache.owned_by("user:bob")
    await ana.set("k", "ana's")
    assert await bob.get("k") is None
    assert await cache.get("k") is None
    await bob.set("k", "bob's")
    await cache.set("k", "nobody's")
    assert [await view.get("k") for view in (ana, bob, cache)] == ["ana's", "bob's", "nobody's"]
    await bob.delete("k")
    assert [await view.get("k") for view in (ana, bob, cache)] == ["ana's", None, "nobody's"]


async def test_no_key_reaches_an_owner(cache: Cache, house: Any) -> None:
    """No key, whatever is in it, reads what belongs to an owner: no tuple, no colon, no name of an owner."""
    await cache.owned_by("user:x").set("k", CANARY)
    await cache.owned_by("user").set("x:k", CANARY)
    for key in (("user:x", "k"), ("user", "x:k")):
        bad: Any = key
        for read in (cache.get, lambda k: cache.get_or_set(k, lambda: 0), lambda k: cache.get_many([k]), cache.explain):
            with pytest.raises(InvalidKey):
                await read(bad)
        with pytest.raises(InvalidKey):
            cache.peek(bad)
        with pytest.raises(InvalidKey):
            cache.blocking().peek(bad)
        fetch = cache.cached(lambda _, key=key: key)(lambda n: n)
        with pytest.raises(InvalidKey):
            await cache.cached(lambda _, key=key: key)(_identity)(1)
        del fetch
    for key in ("user:x:k", "user:x", "x:k", "k", "user\x00x:k"):
        assert await cache.get(key) is None
        assert await cache.owned_by("user:x:k").get(key) is None
    assert await cache.owned_by("user").get("k") is None
    assert await cache.owned_by("user:x").get("x:k") is None


async def _identity(n: int) -> int:
    return n


async def test_owner_option_is_the_same_as_owned_by(cache: Cache) -> None:
    """owner= stores for, loads for and decorates for that owner."""
    await cache.set("k", 1, owner="user:a")
    assert await cache.get("k") is None
    assert await cache.owned_by("user:a").get("k") == 1
    assert await cache.get_or_set("k", lambda: 2, owner="user:a") == 1
    assert await cache.get_or_set_many(["k"], lambda keys: dict.fromkeys(keys, 2), owner="user:b") == {"k": 2}
    assert await cache.owned_by("user:b").get("k") == 2
    space = cache.namespace("n", owner="user:c")
    await space.set("k", 3)
    assert await space.get("k") == 3
    assert await cache.namespace("n").get("k") is None
    assert await cache.namespace("n").owned_by("user:c").get("k") == 3

    @cache.cached("f:{n}", owner="user:d")
    async def f(n: int) -> int:
        return n

    assert await f(5) == 5
    assert await cache.get("f:5") is None
    assert await cache.owned_by("user:d").get("f:5") == 5


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_bad_names(cache: Cache) -> None:
    """A namespace or owner that cannot be one is an InvalidKey."""
    for name in ("x" * 257, 5):
        bad: Any = name
        with pytest.raises(InvalidKey):
            cache.namespace(bad)
    for owner in ("", "x" * 1025, 5):
        bad = owner
        with pytest.raises(InvalidKey):
            cache.owned_by(bad)


async def test_namespaces_have_their_own_keys_and_defaults(cache: Cache, house: Any) -> None:
    """A namespace has its own keys and default options, united with the call's tags; names nest."""
    one = cache.namespace("one", ttl=10, tags=["one"])
    inner = one.namespace("inner")
    await one.set("k", 1, tags=["own"])
    await inner.set("k", 2)
    assert await cache.get("k") is None
    assert await cache.namespace("two").get("k") is None
    assert [await one.get("k"), await inner.get("k")] == [1, 2]
    assert await cache.namespace("one/inner").get("k") == 2
    house.pass_time(11)
    assert [await one.get("k"), await inner.get("k")] == [None, None]
    await one.set("k", 1, tags=["own"])
    await cache.delete_by_tag("one")
    assert await one.get("k") is None
    await one.set("k", 1, tags=["own"])
    await cache.delete_by_tag("own")
    assert await one.get("k") is None


async def test_reach_of_the_root_and_of_views(cache: Cache) -> None:
    """Tags, patterns and clear from the root reach all; from a view they stay inside it."""
    views = {
        "root": cache,
        "a": cache.namespace("a"),
        "a/b": cache.namespace("a").namespace("b"),
        "c": cache.namespace("c"),
        "root+x": cache.owned_by("x"),
        "a+x": cache.namespace("a").owned_by("x"),
        "a+y": cache.namespace("a").owned_by("y"),
    }
    reaches = {
        "root": set(views),
        "a": {"a", "a/b", "a+x", "a+y"},
        "a/b": {"a/b"},
        "c": {"c"},
        "root+x": {"root+x", "a+x"},
        "a+x": {"a+x"},
    }
    for name, reached in reaches.items():
        for kill in ("delete_by_tag", "delete_by_pattern", "clear"):
            for view in views.values():
                await view.set("key:1", 1, tags=["t"])
            view = views[name]
            assert await {
                "delete_by_tag": lambda v=view: v.delete_by_tag("t"),
                "delete_by_pattern": lambda v=view: v.delete_by_pattern("key:*"),
                "clear": view.clear,
            }[kill]()
            left = {other for other, its in views.items() if await its.get("key:1") is None}
            assert left == reached, (name, kill)


async def test_clear_by_name_is_clear_of_that_namespace(cache: Cache) -> None:
    """clear("a") from the root clears a and nothing else."""
    await cache.set("k", 1)
    await cache.namespace("a").set("k", 1)
    await cache.namespace("ab").set("k", 1)
    await cache.clear("a")
    assert await cache.namespace("a").get("k") is None
    assert await cache.namespace("ab").get("k") == 1
    assert await cache.get("k") == 1


async def test_a_sensitive_value_is_kept_in_memory_only(cache: Cache, house: Any) -> None:
    """Without encryption keys a sensitive value and its key reach no file, by whatever verb it is handled."""
    options = {"sensitive": True, "ttl": 100, "stale_if_error": 100}
    await cache.set(f"{CANARY}-key-1", CANARY, **options)
    await cache.get_or_set(f"{CANARY}-key-2", lambda: CANARY, **options)
    await cache.get_or_set_many([f"{CANARY}-key-3"], lambda keys: dict.fromkeys(keys, CANARY), **options)
    await cache.namespace("n", sensitive=True).set(f"{CANARY}-key-4", CANARY)

    @cache.cached("{key}", **options)
    async def load(key: str) -> str:
        return CANARY

    await load(f"{CANARY}-key-5")
    keys = [f"{CANARY}-key-{n}" for n in (1, 2, 3, 5)]
    assert await cache.get_many(keys) == (dict.fromkeys(keys, CANARY) if house.near else {})
    assert await cache.touch(keys[0], 200) is house.near
    if house.near:
        assert await cache.get(keys[0]) == CANARY
    await cache.expire(keys[1])
    await cache.optimize_cache_distribution()
    for n in range(50):
        await cache.set(f"filler {n}", bytes(10_000), ttl=100)
    await cache._engine.background.drain()
    assert_not_on_disk(house.folder)
    await cache.close()
    assert_not_on_disk(house.folder)


def assert_not_on_disk(folder: Path) -> None:
    """No file below the folder has the canary's value or key in it; a key that was deleted may be named in the log."""
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert CANARY.encode() not in text.replace(f"{CANARY}-key".encode(), b""), path


async def test_nobody_is_no_owner(cache: Cache) -> None:
    """A user that is missing by mistake does not read and fill what all share."""
    with pytest.raises(InvalidKey, match="None"):
        cache.owned_by(None)  # type: ignore[arg-type]  # the very mistake
