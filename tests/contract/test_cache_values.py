"""Values: what is set is read, as it was, for as long as it was meant to live; over every line-up of tiers."""

import datetime as dt
import enum
from typing import Any

import pytest

from genesis_cache import Cache, InvalidKey, SerializationError

TTL_FORMS = [90, 90.0, "90s", "1.5m", dt.timedelta(seconds=90)]


class Word(enum.StrEnum):
    """Keys are often members of an enumeration."""

    FIRST = "first"


async def test_set_then_get(cache: Cache) -> None:
    """What was set is read."""
    outcome = await cache.set("a", {"name": "Ana", "tags": [1, 2]})
    assert outcome
    assert outcome.degraded == ()
    assert await cache.get("a") == {"name": "Ana", "tags": [1, 2]}


async def test_absent_key_gives_the_default(cache: Cache) -> None:
    """A key that nobody set gives the default, None if none was given."""
    assert await cache.get("nobody") is None
    assert await cache.get("nobody", 7) == 7


async def test_none_is_a_value(cache: Cache) -> None:
    """A None that was set is found, and is not the default."""
    await cache.set("nothing", None)
    assert await cache.get("nothing", "default") is None
    assert await cache.get_many(["nothing", "absent"]) == {"nothing": None}


async def test_falsy_and_nested_values_come_back_as_their_type(cache: Cache, house: Any) -> None:
    """Falsy, big and nested values come back equal and of their type, from memory and from below."""
    values = [0, False, "", b"", [], (), {}, set(), 2**200, 1.5, -0.0, (1, [2, {"a": (3,)}])]
    for n, value in enumerate(values):
        await cache.set(f"v{n}", value)
    for _ in range(2):
        for n, value in enumerate(values):
            found = await cache.get(f"v{n}", "default")
            assert (type(found), repr(found)) == (type(value), repr(value))
        if house.far:
            house.forget_near(cache)


async def test_overwriting(cache: Cache) -> None:
    """The last value set is the one read."""
    for n in range(5):
        await cache.set("k", n)
        assert await cache.get("k") == n


async def test_ttl_forms(cache: Cache, house: Any) -> None:
    """A length of time may be said in each of its forms, and means the same in all."""
    keys = [f"k{n}" for n in range(len(TTL_FORMS))]
    for key, ttl in zip(keys, TTL_FORMS, strict=True):
        await cache.set(key, 1, ttl=ttl)
    house.pass_time(89.9)
    assert await cache.get_many(keys) == dict.fromkeys(keys, 1)
    house.pass_time(0.2)
    assert await cache.get_many(keys) == {}


async def test_ttl_none_never_expires(cache: Cache, house: Any) -> None:
    """With ttl=None a value lives on."""
    await cache.set("k", 1, ttl=None)
    house.pass_time(10 * 365 * 86400)
    assert await cache.get("k") == 1


async def test_ttl_defaults_go_from_content_type_to_namespace_to_cache(house: Any) -> None:
    """A ttl that is not given is that of the content type, else of the namespace, else of the cache."""
    cache = house.cache(default_ttl=100)
    space = cache.namespace("n", ttl=200)
    await cache.set("cache", 1)
    await space.set("space", 1)
    await space.set("type", 1, content_type="search_results")
    await space.set("call", 1, content_type="search_results", ttl=50)
    assert [await space.get(k) for k in ("space", "type", "call")] == [1, 1, 1]
    for passed, alive in ((60, "cache space type"), (60, "space type"), (100, "type"), (400, "")):
        house.pass_time(passed)
        found = [
            k
            for k, where in (("cache", cache), ("space", space), ("type", space), ("call", space))
            if await where.get(k) == 1
        ]
        assert " ".join(found) == alive


async def test_bad_ttl(cache: Cache) -> None:
    """A ttl that is none is refused with a sentence."""
    for ttl in (-1, "x", float("nan"), "5 parsecs"):
        with pytest.raises((ValueError, TypeError), match="ttl"):
            await cache.set("k", 1, ttl=ttl)
    assert await cache.get("k") is None


async def test_bad_keys(cache: Cache) -> None:
    """A key that cannot be one raises InvalidKey from every verb, and nothing is written."""
    for key in ("", "x" * 1025, "é" * 513, 5, None, b"k", ("a", "b"), ["a"], "\ud800"):
        await refuses(cache, key)
    assert await cache.get("fine") is None


async def refuses(cache: Cache, key: Any) -> None:
    """Every verb refuses the key."""
    calls = [
        lambda: cache.get(key),
        lambda: cache.get_many([key]),
        lambda: cache.set(key, 1),
        lambda: cache.set_many({"fine": 1, key: 1} if not isinstance(key, list) else {}),
        lambda: cache.get_or_set(key, lambda: 1),
        lambda: cache.get_or_set_many([key], lambda keys: dict.fromkeys(keys, 1)),
        lambda: cache.delete(key),
        lambda: cache.expire(key),
        lambda: cache.touch(key, 5),
        lambda: cache.explain(key),
    ]
    for number, call in enumerate(calls):
        if number == 3 and isinstance(key, list):
            continue
        with pytest.raises(InvalidKey):
            await call()
    with pytest.raises(InvalidKey):
        cache.peek(key)


async def test_any_text_up_to_its_limit_is_a_key(cache: Cache) -> None:
    """Any text of 1 to 1,024 bytes is a key."""
    for key in ("a", "x" * 1024, "é" * 512, "with space\n:%*?", "\x00", "日本"):
        assert await cache.set(key, key)
        assert await cache.get(key) == key
        assert await cache.delete(key)
        assert await cache.get(key) is None


async def test_a_key_that_is_a_kind_of_string(cache: Cache, house: Any) -> None:
    """A StrEnum member and its text are one key."""
    await cache.set(Word.FIRST, 1)
    assert await cache.get("first") == 1
    assert await cache.get(Word.FIRST) == 1
    assert cache.peek(Word.FIRST) == (1 if house.peeks else None)
    await cache.set("first", 2)
    assert await cache.get(Word.FIRST) == 2
    assert await cache.get_many([Word.FIRST]) == {"first": 2}
    assert await cache.get_or_set(Word.FIRST, lambda: 3) == 2
    await cache.delete(Word.FIRST)
    assert await cache.get("first") is None
    await cache.set("tagged", 1, tags=[Word.FIRST])
    await cache.delete_by_tag("first")
    assert await cache.get("tagged") is None


async def test_get_many_and_set_many(cache: Cache, house: Any) -> None:
    """Many keys at once: only what was found, in the order asked, wherever it stands."""
    assert await cache.set_many({f"k{n}": n for n in range(20)}, ttl=60)
    house.forget_near(cache) if house.far else None
    await cache.set("k3", 33)
    assert await cache.get_many(["k5", "absent", "k3", "k5", "k1"]) == {"k5": 5, "k3": 33, "k1": 1}
    assert list(await cache.get_many(["k9", "k2"])) == ["k9", "k2"]
    assert await cache.get_many([]) == {}
    assert await cache.set_many({})


async def test_get_many_refuses_one_string(cache: Cache) -> None:
    """One string where several keys belong is an error, not a list of letters."""
    with pytest.raises(InvalidKey):
        await cache.get_many("abc")


async def test_delete(cache: Cache) -> None:
    """Deleted keys are gone, others stay, and deleting what is not there is fine."""
    await cache.set_many({"a": 1, "b": 2, "c": 3})
    assert await cache.delete("a", "b", "never")
    assert await cache.get_many(["a", "b", "c"]) == {"c": 3}
    assert await cache.delete()


async def test_peek_never_waits(cache: Cache, house: Any) -> None:
    """Peek gives what the nearest tier holds, without awaiting: nothing where that is behind a server."""
    await cache.set("k", 1)
    assert cache.peek("k", "no") == (1 if house.peeks else "no")
    house.forget_near(cache)
    assert cache.peek("k", "no") == (1 if house.peeks and not house.near else "no")


async def test_touch_prolongs_and_shortens(cache: Cache, house: Any) -> None:
    """Touch gives a fresh value a new ttl from now on, in every tier, and says False for one that is not there."""
    await cache.set("k", 1, ttl=10)
    house.pass_time(9)
    assert await cache.touch("k", 10) is True
    house.pass_time(9)
    assert await cache.get("k") == 1
    house.forget_near(cache) if house.far else None
    assert await cache.get("k") == 1
    assert await cache.touch("k", 1) is True
    house.pass_time(1.1)
    assert await cache.get("k") is None
    assert await cache.touch("k", 10) is False
    assert await cache.touch("never", 10) is False
    await cache.set("for ever", 1, ttl=5)
    assert await cache.touch("for ever", None)
    house.pass_time(1e9)
    assert await cache.get("for ever") == 1


async def test_touch_keeps_what_else_was_said(cache: Cache, house: Any) -> None:
    """Touch changes the ttl and nothing else: tags, stale times, version and refresh stay."""
    await cache.set("k", 1, ttl=10, tags=["t"], stale_if_error=60, version=5, refresh_ahead=0.5, priority="HIGH")
    assert await cache.touch("k", 20)
    row = next(tier for tier in (await cache.explain("k")).tiers if tier.present)
    assert (row.tags, row.version, row.priority) == (("t",), 5, "HIGH")
    house.pass_time(25)
    assert await cache.get("k") is None
    assert await cache.get("k", allow_stale=True) == 1
    assert await cache.set("k", 1, ttl=10, refresh_ahead=0.5)
    assert await cache.touch("k", 20)
    calls = []
    house.pass_time(12)
    assert await cache.get_or_set("k", lambda: calls.append(1) or 2, ttl=10) == 1
    await cache._engine.background.drain()
    assert calls == [1], "past half of the new ttl a hit refreshes"
    await cache.delete_by_tag("t")


async def test_expire_keeps_the_value_for_those_who_may_have_it(cache: Cache, house: Any) -> None:
    """An expired key is no fresh value any more, but still there for stale_if_error."""
    await cache.set("kept", 1, ttl=100, stale_if_error=100)
    await cache.set("plain", 1, ttl=100)
    assert await cache.expire("kept", "plain", "never")
    assert await cache.get_many(["kept", "plain"]) == {}
    assert await cache.get("kept", allow_stale=True) == 1
    assert await cache.get("plain", allow_stale=True) is None
    house.forget_near(cache) if house.far else None
    assert await cache.get("kept") is None

    def fail() -> None:
        raise OSError("down")

    assert await cache.get_or_set("kept", fail, stale_if_error=100) == 1


async def test_expired_values_are_gone_in_every_tier(cache: Cache, house: Any) -> None:
    """After its ttl a value is found nowhere, stale or not."""
    await cache.set("k", 1, ttl=5)
    house.pass_time(5.01)
    assert await cache.get("k", allow_stale=True) is None
    house.forget_near(cache)
    assert await cache.get("k", allow_stale=True) is None


async def test_newest_version_wins(cache: Cache, house: Any) -> None:
    """An older version never replaces a newer one; an equal or newer one does, and after a delete any does."""
    await cache.set("k", "v5", version=5)
    await cache.set("k", "v3", version=3)
    assert await cache.get("k") == "v5"
    house.forget_near(cache) if house.far else None
    await cache.set("k", "v4", version=4)
    assert await cache.get("k") == "v5"
    await cache.set("k", "v5 again", version=5)
    assert await cache.get("k") == "v5 again"
    await cache.set("k", "v9", version=9)
    assert await cache.get("k") == "v9"
    await cache.delete("k")
    await cache.set("k", "v1", version=1)
    assert await cache.get("k") == "v1"


async def test_isolate_gives_every_reader_its_own_copy(cache: Cache, house: Any) -> None:
    """What a reader does to an isolated value no other reader sees."""
    mine = [1]
    await cache.set("k", mine, isolate=True)
    mine.append("writer")
    for _ in range(3):
        found = await cache.get("k")
        assert found == [1]
        found.append("reader")
    (await cache.get_many(["k"]))["k"].append("many")
    house.forget_near(cache) if house.far else None
    (await cache.get("k")).append("promoted")
    assert await cache.get("k") == [1]
    if house.near:
        cache.peek("k").append("peek")
    loaded = await cache.get_or_set("l", lambda: [1], isolate=True)
    loaded.append("loader")
    assert await cache.get("l") == [1]


async def test_unencodable_value(cache: Cache, house: Any) -> None:
    """A value that cannot leave memory makes set raise, with nothing half-written; get_or_set returns and counts it."""
    value = lambda: 1  # noqa: E731  # a function is what no tier but memory can hold
    if not house.far:
        assert await cache.set("k", value)
        assert await cache.get("k") is value
        return
    await cache.set("k", "old")
    with pytest.raises(SerializationError):
        await cache.set("k", value)
    with pytest.raises(SerializationError):
        await cache.set_many({"other": 1, "k": value})
    assert await cache.get("k") == "old"
    assert await cache.get("other") is None
    assert await cache.get_or_set("l", lambda: value) is value
    assert await cache.get("l") is (value if house.near else None)
    assert cache.analytics()["namespaces"]["(root)"]["unencodable"] == 1


BAD_OPTIONS: list[dict[str, Any]] = [
    {"unknown": 1},
    {"tags": "one string"},
    {"ttl": [5]},
    {"priority": 17},
    {"tiers": ["nowhere"]},
    {"tags": [5]},
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
@pytest.mark.parametrize("tiers", [("memory",)])
async def test_bad_options(cache: Cache, options: dict[str, Any]) -> None:
    """An option that is none, or has a wrong value, raises wherever options are taken, and nothing is written."""
    for call in (lambda: cache.set("k", 1, **options), lambda: cache.get_or_set("k", lambda: 1, **options)):
        with pytest.raises((TypeError, ValueError)):
            await call()
    with pytest.raises((TypeError, ValueError)):
        cache.namespace("n", **options)
    with pytest.raises((TypeError, ValueError)):
        cache.cached(**options)
    assert await cache.get("k") is None


async def test_a_closed_cache_raises(cache: Cache) -> None:
    """After close every verb raises a CacheError; open makes it usable again."""
    await cache.set("k", 1)
    await cache.close()
    await cache.close()
    for call in (
        lambda: cache.get("k"),
        lambda: cache.set("k", 1),
        lambda: cache.get_or_set("k", lambda: 1),
        lambda: cache.delete("k"),
    ):
        with pytest.raises(Exception, match="closed"):
            await call()
    with pytest.raises(Exception, match="closed"):
        cache.peek("k")
    await cache.open()
    await cache.open()
    await cache.set("k", 2)
    assert await cache.get("k") == 2


async def test_first_use_opens(house: Any) -> None:
    """A cache needs no open call, and works as a context manager."""
    assert await house.cache().get("k") is None
    async with house.cache() as cache:
        await cache.set("k", 1)
        assert await cache.get("k") == 1


async def test_values_from_url(house: Any) -> None:
    """from_url takes the tiers' URLs in order and settings with or without cache_."""
    async with Cache.from_url(*house.urls(), cache_default_ttl=60, max_loads=3) as cache:
        await cache.set("k", 1)
        assert await cache.get("k") == 1
        assert tuple(row["tier"] for row in cache.analytics()["layer_statistics"].values()) == house.tiers
