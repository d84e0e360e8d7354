"""Real apps over real caches, asked over ASGI or through a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from genesis_cache import Cache, CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.web import app

TOKEN = "correct-horse"  # noqa: S105  # of a test
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def client_of(whole: Any) -> httpx2.AsyncClient:
    """A client that speaks to an ASGI app in this process."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=whole), base_url="http://shop.example")


class Site:
    """A cache, its app and a client of it."""

    def __init__(self, cache: Cache, clock: FakeClock, client: httpx2.AsyncClient) -> None:
        self.cache = cache
        self.clock = clock
        self.client = client

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, body: object, **options: Any) -> httpx2.Response:
        """A call of a control route with the token."""
        headers = BEARER | {"Content-Type": "application/json"} | options.pop("headers", {})
        return await self.client.post(path, content=json.dumps(body), headers=headers, **options)


Open = Callable[..., Awaitable[Site]]


@pytest_asyncio.fixture
async def open_site(tmp_path: Path) -> AsyncIterator[Open]:
    """Makes sites; closed when the test is over."""
    sites: list[Site] = []

    async def make(*tiers: str, token: str | None = TOKEN, **settings: object) -> Site:
        urls = {
            "memory": "memory://?max_mb=20",
            "disk": f"disk://{tmp_path}/disk?max_mb=20",
            "database": f"sqlite:///{tmp_path}/cache.db",
        }
        clock = FakeClock()
        made = CacheSettings().with_urls(*(urls[tier] for tier in tiers or ("memory",))).with_overrides(**settings)
        cache = Cache(made, clock=clock)
        site = Site(cache, clock, client_of(app(cache, token)))
        await cache.open()
        sites.append(site)
        return site

    yield make
    for site in sites:
        await site.client.aclose()
        await site.cache.close()


async def settled(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something that goes on behind has come about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nothing tells when it has
            await asyncio.sleep(0.001)


@pytest.fixture(name="settled")
def settled_fixture() -> Callable[..., Awaitable[None]]:
    """Waits for what goes on behind."""
    return settled


@pytest_asyncio.fixture
async def site(open_site: Open) -> Site:
    """A site over memory alone."""
    return await open_site()
