"""The door: what a user may write, and what is refused with a sentence."""

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from genesis_cache import Cache, InvalidKey


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    """Memory only."""
    cache = Cache.from_url("memory://")
    yield cache
    await cache.close()


async def test_a_parameter_may_have_any_name(cache: Cache) -> None:
    """No name of a parameter runs into those of the wrapper."""

    @cache.cached()
    async def odd(
        type: Any,  # noqa: A002  # the point of the test
        _key: int,
        _now: int,
        _entry: int,
        key: int,
        _lookup: int = 2,
        _miss: int = 3,
    ) -> Any:
        return type, _key, _now, _entry, key, _lookup, _miss

    for _ in range(2):
        assert await odd("a", 1, 2, 3, 4) == ("a", 1, 2, 3, 4, 2, 3)
    assert await odd("a", 1, 2, 3, 5) == ("a", 1, 2, 3, 5, 2, 3)
    assert await odd("a", 1, 2, 3, 4, _lookup=7) == ("a", 1, 2, 3, 4, 7, 3)


async def test_a_partial_function_can_be_decorated(cache: Cache) -> None:
    """A callable without a name of its own is cached like a function."""
    add = cache.cached("add:{y}")(functools.partial(lambda x, y: x + y, 1))
    assert add(2) == 3
    assert add.key(2) == "add:2"


async def test_what_is_no_function_is_refused_when_it_is_decorated(cache: Cache) -> None:
    """A classmethod below cached() is refused with the hint to put it above."""
    not_a_function: Any = classmethod(lambda cls: cls)
    with pytest.raises(TypeError, match="put it above"):
        cache.cached("x")(not_a_function)


async def test_a_wrong_call_of_key_names_the_function(cache: Cache) -> None:
    """A missing argument of key() is told with the name that the user wrote."""

    @cache.cached("x:{number}")
    async def fetch(number: int) -> int:
        return number

    with pytest.raises(TypeError, match=r"fetch\.key\(\) missing 1 required positional argument: 'number'"):
        fetch.key()  # type: ignore[call-arg]  # the mistake


@pytest.mark.parametrize("name", ["", "/", "a//b", "/a", "a/", 5, None])
async def test_a_namespace_without_a_name_is_refused(cache: Cache, name: Any) -> None:
    """No mistake in a namespace's name reaches everything."""
    await cache.set("k", 1)
    with pytest.raises(InvalidKey):
        cache.namespace(name)
    if name is not None:
        with pytest.raises(InvalidKey):
            await cache.clear(name)
    assert await cache.get("k") == 1


@pytest.mark.parametrize("places", [0, -1, "5", 1.5, True])
async def test_a_namespace_must_have_places_for_loads(cache: Cache, places: Any) -> None:
    """A limit that would let no load in, or that is no number, is refused."""
    with pytest.raises(ValueError, match="max_loads must be a whole number from 1"):
        cache.namespace("n", max_loads=places)


async def test_an_empty_owner_is_refused_wherever_it_is_said(cache: Cache) -> None:
    """An empty owner is a mistake, not nobody."""
    with pytest.raises(InvalidKey, match="an owner must be"):
        cache.namespace("n", owner="")
    with pytest.raises(InvalidKey, match="an owner must be"):
        cache.owned_by("")
    with pytest.raises(InvalidKey, match="an owner must be"):
        await cache.set("k", 1, owner="")
