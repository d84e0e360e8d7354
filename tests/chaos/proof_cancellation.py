"""Callers who are cancelled at any moment, through a proxy that delays and slices: no caller gets another's value."""

import asyncio
import random
from typing import Any

from genesis_cache import Cache, CacheSettings
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import PostgresServer, RedisServer

FULL_DOSE = 100_000
KEYS = [f"k{n}" for n in range(64)]
CALLERS = 64


async def prove(dose: float) -> dict[str, object]:
    """100,000 cancellations over Redis and 10,000 over PostgreSQL."""
    figures = await storm(int(FULL_DOSE * dose))
    other = await storm(int(FULL_DOSE * dose / 10), database=True)
    return {name: figures[name] + other[name] for name in figures}


async def storm(count: int, *, database: bool = False) -> dict[str, Any]:
    """Cancel so many calls of a cache on a server; what came of them all."""
    server = PostgresServer() if database else RedisServer()
    with server, Proxy(server.port, redis=not database) as proxy:
        url = server.url_at(proxy.port)
        settings = CacheSettings(redis_socket_timeout=10, cache_far_budget_ms=5000).with_urls(url)
        async with Cache(settings) as cache:
            await cache.set_many({key: _named(key) for key in KEYS})
            proxy.replies.jitter_s, proxy.replies.slice_bytes = 0.002, 150
            proxy.requests.slice_bytes = 400
            figures = await _Storm(cache, count).blow()
            proxy.heal()
            found = await cache.get_many(KEYS)
            wrong = [key for key, value in found.items() if value != _named(key)]
            if wrong:
                figures["faults"].append(f"after the storm {wrong} are wrong")
            return figures


class _Storm:
    def __init__(self, cache: Cache, count: int) -> None:
        self.cache = cache
        self.left = count
        self.dice = random.Random(count)
        self.figures: dict[str, Any] = {"cancelled": 0, "right": 0, "missed": 0, "faults": []}

    async def blow(self) -> dict[str, Any]:
        await asyncio.gather(*(self._caller() for _ in range(CALLERS)))
        return self.figures

    async def _caller(self) -> None:
        while self.left > 0:
            call = asyncio.ensure_future(self._call())
            if self.dice.random() < 0.7:
                await asyncio.sleep(self.dice.random() * 0.004)
                call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                self.left -= 1
                self.figures["cancelled"] += 1
            except Exception as error:  # noqa: BLE001  # whatever comes out is a fault
                self.figures["faults"].append(f"a call raised {error!r}")

    async def _call(self) -> None:
        key = self.dice.choice(KEYS)
        match self.dice.randrange(10):
            case 0:
                keys = self.dice.sample(KEYS, 5)
                for one, value in (await self.cache.get_many(keys)).items():
                    self._judge(one, value)
            case 1:
                await self.cache.set(key, _named(key))
            case 2:
                self._judge(key, await self.cache.get_or_set(key, lambda: _named(key)))
            case _:
                self._judge(key, await self.cache.get(key))

    def _judge(self, key: str, value: object) -> None:
        if value is None:
            self.figures["missed"] += 1
        elif value == _named(key):
            self.figures["right"] += 1
        else:
            self.figures["faults"].append(f"{key} gave {value!r:.100}")


def _named(key: str) -> str:
    return f"value of {key}; " * 20
