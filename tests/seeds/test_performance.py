"""The seed's fourth suite: 100 writes, 100 hits, 50 misses; it prints its figures and judges none of them."""

import time
from collections.abc import Awaitable, Callable

import pytest

from genesis_cache.advanced_cache_manager import get_cached_value, set_cached_value


async def timed(what: str, count: int, call: Callable[[int], Awaitable[object]]) -> list[object]:
    """Run it so many times and print how long it took."""
    began = time.perf_counter()
    found = [await call(n) for n in range(count)]
    took = time.perf_counter() - began
    print(f"{count} {what} in {took:.3f}s ({1000 * took / count:.3f}ms each)")
    return found


@pytest.mark.usefixtures("clock")
async def test_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """It writes, hits and misses as often as it says."""
    assert all(await timed("writes", 100, lambda n: set_cached_value(f"k{n}", {"n": n})))
    assert await timed("hits", 100, lambda n: get_cached_value(f"k{n}")) == [{"n": n} for n in range(100)]
    assert await timed("misses", 50, lambda n: get_cached_value(f"absent {n}")) == [None] * 50
    assert len(capsys.readouterr().out.splitlines()) == 3
