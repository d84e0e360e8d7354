"""Clients that go away: a closed browser tab harms nobody who asked for the same at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message
from tests.web.conftest import Site

from genesis_cache.web import endpoint

Settled = Callable[..., Any]
LIMIT_S = 30


class Client:
    """One request over ASGI, whose client can go away as servers tell it, or be cut off by the server."""

    def __init__(self, app: ASGIApp, path: str = "/slow") -> None:
        self.gone = asyncio.Event()
        self.body = b""
        self.status = 0
        self._asked = False
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
                 "headers": [], "http_version": "1.1", "scheme": "http", "server": ("shop", 80),
                 "client": ("c", 1), "root_path": "", "asgi": {"version": "3.0", "spec_version": "2.3"}}  # fmt: skip
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._asked:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def leave(self, how: str) -> None:
        """Go away: ``told`` to the app, or ``cancelled`` by the server."""
        self.gone.set()
        if how == "cancelled":
            self.task.cancel()


class Kitchen:
    """A slow handler and a slow stream that count how often they run."""

    def __init__(self, site: Site) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.app = FastAPI()

        @self.app.get("/slow")
        @endpoint(site.cache, ttl=60)
        async def slow() -> dict[str, int]:
            self.runs += 1
            await self.go.wait()
            return {"soup": self.runs}

        @site.cache.cached("words", ttl=60)
        async def words() -> AsyncIterator[bytes]:
            self.runs += 1
            yield b"so"
            await self.go.wait()
            yield b"up"

        @self.app.get("/words")
        async def streamed() -> StreamingResponse:
            return StreamingResponse(words())


class Watch(BaseHTTPMiddleware):
    """A middleware of the kind that cancels what is below it when the client has gone."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass on."""
        return await call_next(request)


@pytest.mark.parametrize("how", ["told", "cancelled"])
@pytest.mark.parametrize("who", [[0], [1], [0, 2], [0, 1, 2]], ids=["leader", "follower", "both", "all"])
@pytest.mark.parametrize("is_watched", [False, True], ids=["plain", "middleware"])
async def test_clients_of_a_cached_endpoint(
    site: Site, settled: Settled, who: list[int], how: str, is_watched: bool
) -> None:
    """Of three clients some go away while the handler runs; the rest get its one answer, the next one a hit."""
    kitchen = Kitchen(site)
    app: ASGIApp = Watch(kitchen.app) if is_watched else kitchen.app
    clients = [Client(app)]
    await settled(lambda: kitchen.runs, LIMIT_S)
    clients += [Client(app) for _ in range(2)]
    core = site.cache._engine.core

    def waiting() -> int:
        return sum(flight.waiting for space in core.spaces.values() for flight in list(space.flights.values()))

    await settled(lambda: waiting() == 3, LIMIT_S)
    for n in who:
        clients[n].leave(how)
    if how == "cancelled":
        await asyncio.wait([clients[n].task for n in who])
    kitchen.go.set()
    await asyncio.wait([client.task for client in clients])
    stayed = [client for n, client in enumerate(clients) if n not in who]
    assert [(client.status, client.body) for client in stayed] == [(200, b'{"soup":1}')] * len(stayed)
    await settled(lambda: not site.cache._engine.background._tasks, LIMIT_S)
    late = Client(app)
    await late.task
    assert (late.body, kitchen.runs) == (b'{"soup":1}', 1)
    assert core.loads_abandoned == 0


@pytest.mark.parametrize("how", ["told", "cancelled"])
@pytest.mark.parametrize("who", [[0], [1], [0, 1]], ids=["first", "second", "all"])
async def test_clients_of_a_cached_stream(site: Site, settled: Settled, who: list[int], how: str) -> None:
    """A client that leaves in mid-stream harms no other; the stream is stored, and replayed to the next."""
    kitchen = Kitchen(site)
    clients = [Client(kitchen.app, "/words") for _ in range(2)]
    await settled(lambda: all(client.body == b"so" for client in clients), LIMIT_S)
    for n in who:
        clients[n].leave(how)
    await asyncio.wait([clients[n].task for n in who])
    kitchen.go.set()
    for n, client in enumerate(clients):
        if n not in who:
            await client.task
            assert client.body == b"soup"
    await settled(lambda: site.cache.peek("words") == (b"so", b"up"), LIMIT_S)
    late = Client(kitchen.app, "/words")
    await late.task
    assert (late.body, kitchen.runs) == (b"soup", 1)
    await settled(lambda: site.cache._engine.core.loads_abandoned == 0, LIMIT_S)
