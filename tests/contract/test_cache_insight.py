"""Insight: events, figures, explanations, moves and log lines say what happened; over every line-up of tiers."""

import json
import logging
from typing import Any

import pytest

from genesis_cache import Cache


async def test_events(cache: Cache, house: Any) -> None:
    """Each event is told to who asked for it, until undone; a callback that raises disturbs nobody."""
    heard: list[tuple[object, object]] = []
    undo = [
        cache.on(event, lambda told: heard.append((told["event"], told.get("key") or told.get("name"))))
        for event in ("hit", "miss", "stale", "load", "invalidate")
    ]

    def bad(told: Any) -> None:
        raise RuntimeError("a listener's own trouble")

    undo.append(cache.on("hit", bad))
    await cache.get("k")
    await cache.set("k", 1, ttl=10, stale_while_revalidate=60, tags=["t"])
    await cache.get("k")
    house.pass_time(11)
    await cache.get_or_set("k", lambda: 2, ttl=10)
    await cache._engine.background.drain()
    await cache.delete_by_tag("t")
    await cache.delete("k")
    assert heard == [
        ("miss", "k"),
        ("hit", "k"),
        ("stale", "k"),
        ("load", None),
        ("invalidate", "t"),
        ("invalidate", "k"),
    ]
    for one in undo:
        one()
    await cache.set("k", 1)
    await cache.get("k")
    assert len(heard) == 6
    with pytest.raises(ValueError, match="no event"):
        cache.on("nothing", bad)


async def test_figures_add_up(cache: Cache, house: Any) -> None:
    """Requests = hits + misses + those that waited for another's load; all of it is JSON."""
    await cache.set("a", 1)
    for key in ("a", "a", "absent"):
        await cache.get(key)
    await cache.get_many(["a", "absent 2"])
    await cache.get_or_set("l", lambda: 1)
    await cache.get_or_set("l", lambda: 1)
    await cache.get_or_set_many(["l", "m"], lambda keys: dict.fromkeys(keys, 1))
    await cache.set("s", 1, ttl=1, stale_if_error=60)
    house.pass_time(2)

    def fail() -> None:
        raise OSError("down")

    assert await cache.get_or_set("s", fail, stale_if_error=60) == 1
    await cache.namespace("n").get("k")
    await house.count(cache)
    figures = cache.analytics()
    assert json.loads(json.dumps(figures)) == figures
    assert json.dumps(figures, allow_nan=False)
    total = figures["global_statistics"]
    assert (total["requests"], total["hits"], total["misses"], total["loads"]) == (11, 5, 6, 3)
    assert total["global_hit_ratio"] == pytest.approx(5 / 11)
    assert total["stale_served"] == 1
    root = figures["namespaces"]["(root)"]
    assert root["requests"] == root["hits"] + root["misses"] + root["coalesced"] == 10
    assert figures["namespaces"]["n"]["misses"] == 1
    rows = figures["layer_statistics"]
    assert list(rows) == [f"l{n}" for n in range(1, len(house.tiers) + 1)]
    assert [row["tier"] for row in rows.values()] == list(house.tiers)
    assert sum(row["hits"] for row in rows.values()) == 5
    for row in rows.values():
        assert row["up"]
        assert row["capacity_bytes"] > 0
        assert 0 <= row["hit_ratio"] <= 1
        assert row["entries"] >= 3
        assert set(row) >= {"hits", "misses", "size_bytes", "evictions", "p50_ms", "p99_ms"}
    assert set(figures["prefetch"]) == {"enabled", "issued", "useful", "precision", "wasted"}


async def test_explain_verdicts(cache: Cache, house: Any) -> None:
    """Explain tells fresh, stale, absent and invalidated apart, with a sentence and a row a tier."""
    assert (await cache.explain("k")).verdict == "absent"
    await cache.set("k", "value", ttl=10, stale_if_error=60, tags=["t"], version=3, priority="HIGH")
    house.pass_time(4)
    found = await cache.explain("k")
    assert (found.key, found.namespace, found.verdict) == ("k", "", "fresh")
    assert [(row.layer, row.tier) for row in found.tiers] == [(f"l{n}", tier) for n, tier in enumerate(house.tiers, 1)]
    for row in found.tiers:
        assert row.present
        assert row.fresh
        assert row.age == pytest.approx(4, abs=0.01)
        assert row.ttl_left == pytest.approx(6, abs=0.01)
        assert row.size_bytes > 0
        assert (row.tags, row.priority, row.version) == (("t",), "HIGH", 3)
    assert json.dumps(found.to_dict())
    house.pass_time(7)
    found = await cache.explain("k")
    assert found.verdict == "stale"
    assert found.reason
    await cache.set("k", "value", tags=["t"])
    await cache.delete_by_tag("t")
    assert (await cache.explain("k")).verdict in ("invalidated", "absent")
    await cache.delete("k")
    found = await cache.explain("k")
    assert found.verdict == "absent"
    assert not any(row.present for row in found.tiers)
    assert (await cache.namespace("n").owned_by("o").explain("k")).namespace == "n"


async def test_explaining_changes_nothing(cache: Cache, house: Any) -> None:
    """Explain promotes nothing and counts nothing."""
    await cache.set("k", 1)
    house.forget_near(cache)
    before = cache.analytics()["global_statistics"]
    await cache.explain("k")
    after = cache.analytics()["global_statistics"]
    assert (before["hits"], before["misses"]) == (after["hits"], after["misses"])
    if house.near and house.far:
        assert cache.peek("k") is None


async def test_optimize_moves_up_what_is_read_below(house: Any) -> None:
    """What is read below and fits comes up; a dry run only says so."""
    cache = house.cache()
    await cache.set("k", 1, ttl=100)
    house.forget_near(cache)
    if house.far:
        assert await cache.get("k") == 1
        house.forget_near(cache)
    report = await cache.optimize_cache_distribution(dry_run=True)
    moves = 1 if house.far and house.near else 0
    assert (report.applied, report.promoted, len(report.moves)) == (False, moves, moves), report.moves
    assert cache.peek("k") == (None if house.near or not house.peeks else 1)
    report = await cache.optimize_cache_distribution()
    assert (report.applied, report.promoted) == (True, moves)
    if moves:
        assert cache.peek("k") == 1
        assert (report.moves[0].key, report.moves[0].target) == ("k", "l1")
    assert json.dumps(report.to_dict())


async def test_optimize_moves_down_what_is_not_read(house: Any) -> None:
    """When memory is crowded, what nobody reads and a tier below holds leaves memory."""
    if not (house.far and house.near):
        return
    cache = house.cache(l1_cache_max_entries=20)
    for n in range(19):
        await cache.set(f"k{n}", n)
    for n in range(5):
        await cache.get(f"k{n}")
    report = await cache.optimize_cache_distribution()
    assert report.demoted >= 10
    assert [cache.peek(f"k{n}") for n in range(5)] == list(range(5))
    assert await cache.get_many([f"k{n}" for n in range(19)]) == {f"k{n}": n for n in range(19)}


@pytest.mark.parametrize("language", ["es", "en"])
async def test_log_lines(house: Any, language: str, caplog: Any) -> None:
    """Hits at INFO, misses at DEBUG, in the seed's words; keys cannot break a line."""
    cache = house.cache(language=language)
    await cache.set("user:123:profile", 1)
    with caplog.at_level(logging.DEBUG, logger="genesis_cache"):
        await cache.get("user:123:profile")
        await cache.get("metrics:daily")
        await cache.get("evil\nCache hit L1: forged")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    miss = "Cache miss completo: " if language == "es" else "Cache miss: "
    assert lines == [
        ("INFO", "Cache hit L1: user:123:profile"),
        ("DEBUG", f"{miss}metrics:daily"),
        ("DEBUG", f"{miss}evil\\nCache hit L1: forged"),
    ]


async def test_no_log_calls_while_the_level_is_off(cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A hit or a miss makes no call into logging while its level is off; turning it on is noticed at once."""
    logger = logging.getLogger("genesis_cache")
    calls: list[str] = []
    await cache.set("k", 1)
    with monkeypatch.context() as patch:
        for name in ("info", "debug", "log", "isEnabledFor"):
            patch.setattr(logger, name, lambda *_, name=name: calls.append(name))
        for _ in range(3):
            await cache.get("k")
            await cache.get("absent")
            await cache.get_or_set("k", lambda: 1)
    assert calls == []
    with caplog.at_level(logging.INFO, logger="genesis_cache"):
        await cache.get("k")
    assert [record.getMessage() for record in caplog.records] == ["Cache hit L1: k"]
    await cache.get("k")
    assert len(caplog.records) == 1


async def test_a_tier_that_goes_down_says_so_once(house: Any, caplog: Any) -> None:
    """A tier that fails is a WARNING once, in the seed's words, an event, and a reason in the figures."""
    if house.tiers != ("memory", "disk"):
        return
    cache = house.cache(language="es")
    await cache.open()
    heard: list[Any] = []
    cache.on("tier_down", heard.append)
    cache.on("tier_up", heard.append)
    store = cache._engine.core.lanes[0].tier.store
    commit = store.commit

    def fail(_: object) -> None:
        raise OSError("no space left")

    store.commit = fail
    with caplog.at_level(logging.WARNING, logger="genesis_cache"):
        for n in range(3):
            assert not await cache.set("k", n)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "⚠️ Disco no disponible - usando solo caché en memoria"
    assert len([line for line in lines if "no disponible" in line]) == 1
    assert [told["event"] for told in heard] == ["tier_down"]
    row = cache.analytics()["layer_statistics"]["l2"]
    assert (row["up"], "no space left" in row["reason"]) == (False, True)
    store.commit = commit
    house.pass_time(30)
    await cache._engine.writing.pay()
    assert await cache.set("k", 9)
    assert [told["event"] for told in heard] == ["tier_down", "tier_up"]
