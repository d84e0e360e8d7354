"""Mounting: the app alone, inside another, and the cache as a handler's parameter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.web.conftest import BEARER, TOKEN, client_of

from genesis_cache import Cache, CacheClosed, CacheSettings
from genesis_cache.web import CacheDep, app, current_cache, install, router


def new_cache() -> Cache:
    """A cache over memory."""
    return Cache(CacheSettings(cache_tiers=("memory",)))


def lifespan(whole: Any) -> Any:
    """What a server does at start and stop."""
    return whole.router.lifespan_context(whole)


async def test_run_alone_the_app_opens_and_closes_the_cache() -> None:
    """While it runs the cache is open, afterwards closed, and a second run works."""
    cache = new_cache()
    whole = app(cache)
    for _ in range(2):
        async with lifespan(whole), client_of(whole) as client:
            await cache.set("k", 1)
            assert (await client.get("/healthz")).status_code == 200
        with pytest.raises(CacheClosed):
            await cache.get("k")


@pytest.mark.parametrize("prefix", ["/ops", "/a/b", ""])
async def test_mounted_anywhere_every_route_works(prefix: str) -> None:
    """Under a prefix the routes, the page and its files are where the page looks for them."""
    async with new_cache() as cache:
        whole = Starlette(routes=[Mount(prefix, app(cache, TOKEN))])
        async with client_of(whole) as client:
            await cache.set("a/b", 1)
            for path in ("", "/levels", "/efficiency", "/keys/a/b", "/dashboard", "/dashboard/page.js"):
                assert (await client.get(f"{prefix}/monitoring/cache{path}")).status_code == 200
            done = await client.post(f"{prefix}/cache/clear", json={"all": True}, headers=BEARER)
            assert done.json()["matched"] == 1


async def test_the_router_is_part_of_somebodys_app() -> None:
    """`include_router` adds the routes to the app's own, under a prefix and in its OpenAPI."""
    async with new_cache() as cache:
        whole = FastAPI()
        whole.include_router(router(cache, TOKEN), prefix="/internal")
        async with client_of(whole) as client:
            assert (await client.get("/internal/healthz")).status_code == 200
            paths = (await client.get("/openapi.json")).json()["paths"]
    assert "/internal/monitoring/cache/keys/{key}" in paths
    assert "/internal/cache/invalidate" in paths


async def test_install_opens_the_cache_before_the_apps_own_lifespan_and_closes_it_after() -> None:
    """An app's own start and stop can use the cache."""
    seen: list[Any] = []
    cache = new_cache()

    @asynccontextmanager
    async def own(_: Any) -> AsyncIterator[dict[str, str]]:
        await cache.set("k", "from start")
        yield {"state": "kept"}
        seen.append(await cache.get("k"))

    whole = FastAPI(lifespan=own)
    install(whole, cache)
    async with lifespan(whole) as state:
        assert state == {"state": "kept"}
        assert await cache.get("k") == "from start"
    assert seen == ["from start"]
    with pytest.raises(CacheClosed):
        await cache.get("k")


async def test_a_handler_gets_the_cache_by_its_annotation() -> None:
    """`cache: CacheDep` is the installed cache, in routers too, and no parameter of the request."""
    cache = new_cache()
    whole, part = FastAPI(), APIRouter()
    install(whole, cache)

    @part.get("/count")
    async def count(cache: CacheDep) -> int:
        return int(await cache.get_or_set("n", lambda: 7))

    whole.include_router(part)
    async with lifespan(whole), client_of(whole) as client:
        assert (await client.get("/count")).json() == 7
        assert "parameters" not in (await client.get("/openapi.json")).json()["paths"]["/count"]["get"]


async def test_a_test_puts_another_cache_in_its_place() -> None:
    """`dependency_overrides` works as for every dependency."""
    real, other = new_cache(), new_cache()
    whole = FastAPI()
    install(whole, real)

    @whole.get("/k")
    async def key(cache: CacheDep) -> str:
        return str(await cache.get("k"))

    whole.dependency_overrides[current_cache] = lambda: other
    async with other, client_of(whole) as client:
        await other.set("k", "the test's")
        assert (await client.get("/k")).json() == "the test's"


async def test_an_app_without_a_cache_says_what_to_call() -> None:
    """A forgotten `install` is one clear sentence."""
    whole = FastAPI()

    @whole.get("/k")
    async def key(cache: CacheDep) -> str:
        return str(await cache.get("k"))

    async with client_of(whole) as client:
        with pytest.raises(RuntimeError, match="install"):
            await client.get("/k")


async def test_the_page_of_routes_is_good_to_read() -> None:
    """OpenAPI names every route of the contract, with summaries, typed answers and the token."""
    async with new_cache() as cache, client_of(app(cache)) as client:
        schema = (await client.get("/openapi.json")).json()
    operations = {(verb, path): one for path, verbs in schema["paths"].items() for verb, one in verbs.items()}
    assert set(operations) == {
        ("get", "/monitoring/cache"),
        ("get", "/monitoring/cache/levels"),
        ("get", "/monitoring/cache/efficiency"),
        ("get", "/monitoring/cache/events"),
        ("get", "/monitoring/cache/keys/{key}"),
        ("get", "/metrics"),
        ("get", "/healthz"),
        ("post", "/cache/clear"),
        ("post", "/cache/invalidate"),
    }
    for (verb, _), one in operations.items():
        assert one["summary"]
        assert one["description"]
        assert verb == "get" or one["security"] == [{"HTTPBearer": []}]
        assert verb == "get" or {"200", "401", "403", "415", "422", "429"} <= set(one["responses"])
    assert "url" not in str(schema["components"]).lower()  # nothing lets a caller name a server
