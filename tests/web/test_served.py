"""The five endpoints of the first design, metrics and alerts, asked of `genesis-cache serve` over each line-up."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tests.web.serving import Served

from genesis_cache import Cache, CacheSettings
from genesis_cache.testing.servers import RedisServer

TOKEN = "t0k3n"  # noqa: S105  # of a test
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 60.0


class Side:
    """A server of the routes, and a cache of another process over the same tiers."""

    def __init__(self, served: Served, cache: Cache, client: httpx2.AsyncClient) -> None:
        self.served = served
        self.cache = cache
        self.client = client

    async def get(self, path: str) -> Any:
        """The JSON of an answer."""
        return (await self.client.get(path)).json()

    async def post(self, path: str, body: dict[str, object]) -> Any:
        """The JSON of an answer to who has the token."""
        return (await self.client.post(path, json=body, headers=BEARER)).json()

    async def until(self, path: str, holds: Callable[[Any], object]) -> Any:
        """The first answer of which something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                told = await self.get(path)
                if holds(told):
                    return told
                await asyncio.sleep(0.05)


Open = Callable[..., Any]


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Starts a server over these variables, and a cache beside it."""
    sides: list[Side] = []

    async def start(**variables: str) -> Side:
        said = {"CACHE_DISK_PATH": str(tmp_path / "disk"), "CACHE_NAME": f"served-{uuid.uuid4().hex}", **variables}
        served = await asyncio.to_thread(Served, tmp_path, CACHE_CONTROL_TOKEN=TOKEN, **said)
        base = served.document["urls"]["health"].removesuffix("/healthz")
        client = httpx2.AsyncClient(base_url=base, timeout=30, transport=httpx2.AsyncHTTPTransport(retries=5))
        cache = Cache(CacheSettings.from_env(said))
        await cache.open()
        sides.append(Side(served, cache, client))
        await sides[-1].until("/healthz", lambda told: told["status"] == "ok")
        return sides[-1]

    yield start
    for side in sides:
        await side.client.aclose()
        await side.cache.close()
        await asyncio.to_thread(side.served.end, signal.SIGKILL)


async def walked(side: Side, tiers: list[str]) -> None:
    """All five endpoints, and the metrics, with entries that another process has stored."""
    layers = [f"l{number}" for number in range(1, len(tiers) + 1)]
    await side.cache.set("product:7", {"name": "Lamp"}, tags=["catalog"])
    await side.cache.namespace("shop").set("page", "x")
    await side.cache.owned_by("user:7").set("cart", ["lamp"])

    whole = await side.get("/monitoring/cache")
    assert {"global_statistics", "layer_statistics", "namespaces", "recommendations", "prefetch"} <= set(whole)
    levels = (await side.get("/monitoring/cache/levels"))["levels"]
    assert [(row["layer"], row["tier"], row["up"]) for row in levels] == [
        (layer, tier, True) for layer, tier in zip(layers, tiers, strict=True)
    ]
    told = await side.get("/monitoring/cache/efficiency")
    assert told == {"score": 100, "recommendations": [], "alerts": []}
    metrics = (await side.client.get("/metrics")).text
    assert all(f'cache_tier_up{{layer="{layer}"}} 1.0' in metrics for layer in layers)

    there = (await side.get("/monitoring/cache/keys/product:7"))["tiers"]
    assert [row["present"] for row in there] == [False, *[True] * (len(tiers) - 1)]
    assert (await side.post("/cache/invalidate", {"tag": "catalog"}))["status"] == "applied"
    assert (await side.get("/monitoring/cache/keys/product:7"))["verdict"] in ("invalidated", "absent")
    assert (await side.post("/cache/invalidate", {"user_id": 7}))["status"] == "applied"
    assert (await side.post("/cache/clear", {"namespace": "shop", "dry_run": True}))["status"] == "dry_run"
    assert (await side.post("/cache/clear", {"namespace": "shop"}))["status"] == "applied"
    async with asyncio.timeout(PATIENCE_S):
        while await left(side.cache):  # noqa: ASYNC110  # nothing tells when the other process has heard
            await asyncio.sleep(0.05)


async def left(cache: Cache) -> list[object]:
    """What is left of the three entries."""
    own, shop = cache.owned_by("user:7"), cache.namespace("shop")
    found = [await cache.get("product:7"), await own.get("cart"), await shop.get("page")]
    return [value for value in found if value is not None]


async def test_memory_and_disk_alone(opened: Open) -> None:
    """Without any server: figures, levels, efficiency, clearing and invalidating, heard by another process."""
    await walked(await opened(CACHE_TIERS="memory,disk"), ["memory", "disk"])


@pytest.mark.slow
async def test_all_three_layers(opened: Open, own_redis: RedisServer, postgres_url: str) -> None:
    """Over Redis and PostgreSQL the same, and a Redis that dies is a critical alert, a metric, and degraded health."""
    side = await opened(REDIS_URL=own_redis.url, DATABASE_URL=postgres_url, CACHE_TIERS="memory,redis,database")
    await walked(side, ["memory", "redis", "database"])
    own_redis.kill()
    told = await side.until("/monitoring/cache/efficiency", lambda told: told["alerts"])
    assert (told["alerts"][0]["name"], told["alerts"][0]["severity"]) == ("tier_down", "critical")
    assert "l2 (redis)" in told["alerts"][0]["message"]
    assert told["score"] < 100
    assert 'cache_tier_up{layer="l2"} 0.0' in (await side.client.get("/metrics")).text
    assert (await side.get("/healthz"))["status"] == "degraded"
