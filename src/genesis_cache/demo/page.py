"""The demo's page: the real dashboard, over the cache that the demo uses at the time."""

import asyncio
import os
import secrets
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from genesis_cache.cache import Cache
from genesis_cache.model.errors import CacheError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
POLL_SECONDS = 0.005


class Page:
    """Serves the routes of the cache that is shown, while it is entered. Port 0 is any that is free.

    Whoever has the token may control the cache: that of ``CACHE_CONTROL_TOKEN``, else one made up for this run.
    """

    def __init__(self, host: str = HOST, port: int = 0) -> None:
        self._host = host
        self._port = port
        self._app: ASGIApp | None = None
        self._feed: Any = None
        self.token = os.environ.get("CACHE_CONTROL_TOKEN") or secrets.token_hex(4)
        self.url = ""
        """Of the dashboard."""

    async def __aenter__(self) -> Self:
        try:
            from genesis_cache.web import serving  # noqa: PLC0415  # needs the optional extra "web"
        except ModuleNotFoundError as missing:
            told = f"the demo's page needs {missing.name!r}: install it with pip install 'genesis-cache[web]'"
            raise CacheError(told) from None
        bound = serving.listening(self._host, self._port)
        self.url = f"{serving.base_url(bound, self._host)}/monitoring/cache/dashboard"
        self._server = serving.Server(self._answer, self._end_streams, lifespan=False, signals=False)
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110  # it tells in no other way
            await asyncio.sleep(POLL_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        await self._serving

    def show(self, cache: Cache) -> None:
        """Show this cache from now on; who watches another is let go, and comes back to this one."""
        from genesis_cache import web  # noqa: PLC0415  # needs the optional extra "web"

        self._end_streams()
        app = web.app(cache, self.token)
        self._feed = app.state.genesis_cache_feed
        self._feed.start()
        self._app = app

    def _end_streams(self) -> None:
        if self._feed is not None:
            self._feed.stop()

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if self._app is not None:
            await self._app(scope, receive, send)
