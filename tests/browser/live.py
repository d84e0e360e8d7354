"""A small shop behind a cache, with visitors who never stop: what the dashboard is looked at with.

``python live.py PORT TOKEN URL...`` prints its address once it listens, and serves until its standard input is closed.
"""

import asyncio
import random
import sys

import uvicorn

from genesis_cache import Cache
from genesis_cache.web import app

VISITORS = 12
PAUSE_S = 0.04
LOAD_S = 0.012
ITEMS = 4000


async def main(port: int, token: str, *urls: str) -> None:
    """Serve the page over a cache that is being used."""
    async with Cache.from_url(*urls, name="browser") as cache:
        kept = {"ttl": "1h", "priority": "critical"}  # in memory, whatever else has to leave it
        for number in range(5):
            lamp = {"name": f"Lamp {number}", "price": 12.5}
            await cache.set(f"product:{number}", lamp, tags=["catalog", f"product:{number}"], **kept)
        await cache.owned_by("user:7").set("cart", ["lamp"], **kept)
        await cache.namespace("old").set("report", "of last week", **kept)
        whole = app(cache, token or None)
        server = uvicorn.Server(uvicorn.Config(whole, port=port, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn tells it in no other way
            await asyncio.sleep(0.01)
        sys.stdout.write(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        visitors = [asyncio.create_task(visitor(cache, random.Random(number))) for number in range(VISITORS)]
        await asyncio.to_thread(sys.stdin.read)
        whole.state.genesis_cache_feed.stop()
        server.should_exit = True
        for task in visitors:
            task.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
        await serving


async def visitor(cache: Cache, rng: random.Random) -> None:
    """One who asks for popular things most of the time."""
    shop = cache.namespace("shop", ttl="5m")
    users = cache.namespace("users", ttl=2, stale_while_revalidate=20)
    search = cache.namespace("search", ttl=30)

    async def load() -> str:
        await asyncio.sleep(rng.lognormvariate(0, 0.4) * LOAD_S)
        return "x" * rng.randint(200, 3000)

    while True:
        view = rng.choices((shop, users, search), (8, 4, 1))[0]
        number = int(rng.paretovariate(0.6)) % ITEMS
        await view.get_or_set(f"item:{number}", load, tags=[f"item:{number}"])
        await asyncio.sleep(rng.expovariate(1 / PAUSE_S))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *sys.argv[3:]))
