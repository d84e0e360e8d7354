"""Calls: how many functions of ours stand between a reader and a value in memory."""

import sys
from collections.abc import Awaitable, Callable
from types import FrameType

import pytest
from tests.shape.source import PACKAGE

from genesis_cache import Cache, CacheSettings

MAX_CALLS = 3
MAX_FILES = 3


async def own_calls(read: Callable[[], Awaitable[object]]) -> list[str]:
    """The functions of ours that a read goes through, the least of several: now and then one looks at the log."""
    return min([await _calls_of(read) for _ in range(20)], key=len)


async def _calls_of(read: Callable[[], Awaitable[object]]) -> list[str]:
    """The functions of the package, and those it compiled, that one read goes through."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and (f"/{PACKAGE}/" in name or name.startswith("<cached")):
            called.append(f"{name.rpartition('/')[2]}:{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        await read()
    finally:
        sys.setprofile(None)
    return called


@pytest.fixture(params=["memory", "memory and disk"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CacheSettings:
    """Memory alone, and over the disk."""
    tiers = tuple(request.param.split(" and "))
    return CacheSettings(cache_tiers=tiers, cache_disk_path=str(tmp_path_factory.mktemp("calls") / "cache"))


async def test_a_near_hit_is_at_most_three_calls(settings: CacheSettings) -> None:
    """Reading a plain or a tagged value from memory goes through three functions in three files at most."""
    async with Cache(settings) as cache:
        await cache.set("plain", 1, ttl=60)
        await cache.set("tagged", 2, ttl=60, tags=["a", "b"])
        for key in ("plain", "tagged"):
            await cache.get(key)
            calls = await own_calls(lambda key=key: cache.get(key))  # type: ignore[misc]  # bound at once
            assert 1 <= len(calls) <= MAX_CALLS, calls
            assert len({call.partition(":")[0] for call in calls}) <= MAX_FILES


async def test_a_decorated_near_hit_is_at_most_three_calls(settings: CacheSettings) -> None:
    """A decorated function whose value is in memory goes through three functions at most, its wrapper included."""
    async with Cache(settings) as cache:

        @cache.cached("user:{user_id}", ttl="5m", tags=["user:{user_id}"])
        async def templated(user_id: int) -> int:
            return user_id

        @cache.cached(ttl="5m")
        async def plain(user_id: int, *, verbose: bool = False) -> int:
            return user_id + verbose

        for function in (templated, plain):
            await function(7)
            await function(7)
            calls = await own_calls(lambda function=function: function(7))  # type: ignore[misc]  # bound at once
            assert 1 <= len(calls) <= MAX_CALLS, calls
