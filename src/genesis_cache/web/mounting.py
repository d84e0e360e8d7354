"""Mounting: the cache inside somebody's app (`install`, `CacheDep`), or as an app of its own (`app`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse

from genesis_cache import __version__
from genesis_cache.cache import Cache
from genesis_cache.web.routes import routes

STATE = "genesis_cache"


def app(cache: Cache, token: str | None = None, *, workers: str | Path | None = None) -> FastAPI:
    """A whole ASGI app with every route of the cache, to be run alone or mounted anywhere.

    Run alone, it opens and closes the cache with its lifespan; mounted, the cache opens at its first use and belongs
    to whoever made it. Its first page leads to the dashboard. ``token`` and ``workers`` as for `router`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with cache:
            yield

    whole = FastAPI(
        title="Genesis Cache",
        version=__version__,
        description="What a cache holds and does, and how to make it forget.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from another host
        redoc_url=None,
    )
    whole.state.genesis_cache = cache

    @whole.get("/", include_in_schema=False)
    async def first_page() -> RedirectResponse:
        return RedirectResponse("monitoring/cache/dashboard")  # relative: right under any prefix

    served = routes(cache, token, workers=workers)
    whole.state.genesis_cache_feed = served.feed  # for a server that wants its streams to end when it stops
    whole.include_router(served.router)
    return whole


def install(app: Starlette, cache: Cache) -> None:
    """Let an app own the cache: open before the app's own lifespan begins, closed after it has ended.

    Handlers get it by ``cache: CacheDep``.
    """
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(whole: Any) -> AsyncIterator[Any]:
        async with cache, inner(whole) as state:
            yield state

    app.router.lifespan_context = lifespan
    setattr(app.state, STATE, cache)


def current_cache(connection: HTTPConnection) -> Cache:
    """The cache that was installed in the app; tests put another in its place by ``app.dependency_overrides``."""
    cache: Cache | None = getattr(connection.app.state, STATE, None)
    if cache is None:
        msg = "no cache is installed in this app: call genesis_cache.web.install(app, cache) when it is made"
        raise RuntimeError(msg)
    return cache


CacheDep = Annotated[Cache, Depends(current_cache)]
"""The installed cache as a handler's parameter: ``async def handler(cache: CacheDep)``."""
