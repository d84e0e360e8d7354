"""Hearing: notices of other processes end near copies, one's own do not, and a log made anew ends all that was held."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from genesis_cache import Cache
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """One clock for both caches."""
    return FakeClock()


@pytest_asyncio.fixture
async def pair(tmp_path: Path, clock: FakeClock) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two caches on one folder."""
    settings = CacheSettings().with_urls("memory://", f"disk://{tmp_path}/disk?max_mb=10")
    one, two = Cache(settings, clock=clock), Cache(settings, clock=clock)
    async with one, two:
        yield one, two


async def test_a_hit_is_quick_only_for_a_moment(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """Between two looks at the log a near copy serves; after the next look a deleted one does not."""
    one, two = pair
    await one.set("k", 1)
    clock.advance(1)
    assert await two.get("k") == 1
    await one.delete("k")
    clock.advance(two._engine.hearing.interval_s)
    assert await two.get("k") is None
    assert two._engine.hearing.interval_s <= two._engine.core.settings.cache_max_staleness / 4


async def test_ones_own_writes_are_kept_near(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """Hearing of one's own write does not drop its near copy."""
    one, _ = pair
    for n in range(20):
        await one.set("k", n)
        clock.advance(1)
        one._engine.hearing.listen()
        assert one.peek("k") == n


async def test_a_notice_may_be_heard_twice_or_late(pair: tuple[Cache, Cache], clock: FakeClock) -> None:
    """A notice of a key that is older than the near copy does nothing; a newer one ends it."""
    one, _ = pair
    await one.set("k", 1)
    clock.advance(1)
    one._engine.hearing.listen()
    seq = one._engine.core.floors.seq
    one._engine.hearing.apply(Notice(Kind.KEY, "", None, "k", seq - 1))
    assert one.peek("k") == 1
    one._engine.hearing.apply(Notice(Kind.KEY, "unknown namespace", None, "k", seq + 1))
    assert one.peek("k") == 1
    one._engine.hearing.apply(Notice(Kind.KEY, "", None, "k", seq + 1))
    assert one.peek("k") is None


async def test_starting_over_ends_what_was_held(pair: tuple[Cache, Cache]) -> None:
    """When the log can no longer be believed, nothing in memory is, and far values are read again."""
    one, _ = pair
    await one.set("k", 1)
    one._engine.hearing.start_over()
    assert one.peek("k") is None
    assert await one.get("k") == 1


async def test_an_invalidation_that_the_log_does_not_take_kills_what_was_just_stored(pair: tuple[Cache, Cache]) -> None:
    """A tag deleted while the disk cannot be written kills near copies that bear the log's newest sequences."""
    one, two = pair
    for n in range(20):
        await two.set(f"other {n}", n)
    await one.set("k", 1, tags=["t"])
    store = one._engine.core.lanes[0].tier.store
    commit, try_commit = store.commit, store.try_commit

    def fail(_: object) -> None:
        raise OSError("no space left")

    store.commit = store.try_commit = fail
    assert not await one.delete_by_tag("t")
    assert one.peek("k") is None
    store.commit, store.try_commit = commit, try_commit
