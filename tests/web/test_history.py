"""History: points made of counters, by the second, at the times that a fake clock tells."""

import pytest
from tests.web.conftest import Site

from genesis_cache.web.history import KEPT, History, quantile_ms


async def test_a_point_tells_what_happened_in_its_second(site: Site) -> None:
    """Rates by the second, whatever the time between two readings; what happened before is not in it."""
    now = [100.0]
    history = History(site.cache, monotonic=lambda: now[0], wall=lambda: now[0] + 1e9)
    await site.cache.set("k", 1)
    await site.cache.get("k")
    history.take()
    assert history.since(0) == {}
    for _ in range(6):
        await site.cache.get("k")
    await site.cache.get("nobody")
    now[0] += 0.5
    history.take()
    assert history.number == 0
    now[0] += 1.5
    history.take()
    points = history.since(0)
    assert points["t"] == [1e9 + 102]
    assert (points["requests"], points["hits.l1"], points["missed"], points["stale"]) == ([3.5], [3.0], [0.5], [0.0])
    assert points["size.l1"][0] > 0
    assert {"p50.l1", "p99.l1", "evicted.l1", "loaded", "failed", "waited"} <= set(points)


async def test_the_last_quarter_of_an_hour_is_kept(site: Site) -> None:
    """Older points go, and whoever has seen some is given only those after them."""
    now = [0.0]
    history = History(site.cache, monotonic=lambda: now[0], wall=lambda: now[0])
    for _ in range(KEPT + 11):
        now[0] += 1
        history.take()
    assert history.number == KEPT + 10
    assert len(history.since(0)["t"]) == KEPT
    assert history.since(0)["t"][0] == 12
    assert history.since(history.number - 3)["t"] == [KEPT + 9, KEPT + 10, KEPT + 11]
    assert history.since(history.number) == {}


@pytest.mark.parametrize(("share", "ns"), [(0.25, 2**9 + 2**9 * 0.625), (0.5, 2**10 + 2**10 * 0.25), (1.0, 2**12)])
def test_a_quantile_lies_within_its_bucket(share: float, ns: float) -> None:
    """Durations are taken as evenly spread between the bounds of their bucket; without any there is no quantile."""
    counts = [0] * 64
    counts[10], counts[11], counts[12] = 80, 80, 40
    assert quantile_ms(counts, share) == pytest.approx(ns / 1e6, rel=1e-3)
    assert quantile_ms([0] * 64, share) is None
