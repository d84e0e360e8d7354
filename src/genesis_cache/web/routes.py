"""The routes of one cache on a FastAPI router: monitoring for all, control for who has the token."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response, Security
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials
from starlette.convertors import StringConvertor, register_url_convertor

from genesis_cache.cache import Cache
from genesis_cache.export.workers import Workers
from genesis_cache.model.allowed import token as checked_token
from genesis_cache.model.errors import CacheClosed, InvalidKey
from genesis_cache.model.measures import Measures
from genesis_cache.model.missing import MISSING
from genesis_cache.model.outcome import Inspection
from genesis_cache.model.plain import plain, spelled
from genesis_cache.web import models
from genesis_cache.web.access import Token
from genesis_cache.web.control import BEARER, REFUSALS, Control
from genesis_cache.web.efficiency import efficiency
from genesis_cache.web.feed import Feed
from genesis_cache.web.pages import page
from genesis_cache.web.public import public

HIDDEN = "<sensitive>"


class _AnyText(StringConvertor):
    """As Starlette's ``path``, with line breaks: they are part of keys like everything else."""

    regex = r"[\s\S]*"


register_url_convertor("cache_key", _AnyText())

OptionalToken = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def router(cache: Cache, token: str | None = None, *, workers: str | FilePath | None = None) -> APIRouter:
    """Every route of the cache, for ``app.include_router``.

    ``token`` is what the POSTs and ``?value=true`` ask for; not given, it is the settings' ``CACHE_CONTROL_TOKEN``,
    and where there is none either they answer 403. SettingsError for a token that no header could carry.
    ``workers`` is a folder that the processes of this service share, so that ``/metrics`` adds all of them up; not
    given, the environment's ``CACHE_METRICS_PATH``; without either, a scrape shows the process that answers it.
    """
    return routes(cache, token, workers=workers).router


def routes(cache: Cache, token: str | None = None, *, workers: str | FilePath | None = None) -> "Routes":
    """The same, with what serves it."""
    secret = cache.settings.cache_control_token if token is None else checked_token("token", token)
    folder = workers or os.environ.get("CACHE_METRICS_PATH") or None
    return Routes(cache, Token(secret), None if folder is None else Workers(cache, folder))


class Routes:
    """One cache's routes and what they share."""

    def __init__(self, cache: Cache, token: Token, workers: Workers | None) -> None:
        self._cache = cache
        self._token = token
        self._workers = workers
        self.feed = Feed(cache, is_controlled=token.secret is not None)
        self.router = APIRouter(tags=["cache"], lifespan=self._lifespan)
        self._add_figures()
        self._add_keys()
        self._add_pages()
        self._add_probes()
        self._add_metrics()
        Control(cache, token).add_to(self.router)

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        """While the app runs, this process' figures are there for the others to add up."""
        self.feed.start()
        if self._workers is not None:
            self._workers.start()
        try:
            yield
        finally:
            self.feed.stop()
            if self._workers is not None:
                self._workers.stop()

    def _add_figures(self) -> None:
        cache, add = self._cache, self.router.get

        @add("/monitoring/cache", response_model=models.Analytics, summary="Everything that is counted")
        async def analytics() -> Response:
            """All figures since the process started: global, by layer, by namespace, with recommendations."""
            return _json(public(cache.analytics()))

        @add("/monitoring/cache/levels", response_model=models.Levels, summary="A row a level")
        async def levels() -> Response:
            """Each level, nearest first: hit ratio, entries, bytes and capacity, evictions, latency, up or why not."""
            rows = cache.analytics()["layer_statistics"]
            return _json(public({"levels": [{"layer": layer, **row} for layer, row in rows.items()]}))

        @add("/monitoring/cache/efficiency", response_model=models.Efficiency, summary="Score, alerts and advice")
        async def how_efficient() -> Response:
            """A score of 0 to 100, what to look at now, and what could be better, each with its evidence."""
            return _json(public(efficiency(cache.analytics())))

        @add(
            "/monitoring/cache/events",
            summary="The figures, every second",
            response_class=StreamingResponse,
            responses={
                200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
                503: {"model": models.Detail, "description": "Too many clients watch already."},
            },
        )
        async def events(request: Request) -> StreamingResponse:
            """Server-sent events: `analytics` (the figures, `efficiency`, `health`, `process`) and `points`, as JSON.

            `points` has a list for each figure: rates by the second, milliseconds, bytes. At first it is called
            `history` and has every second of the last quarter of an hour; later it has what is new. The stream ends
            after a quarter of a minute, and goes on where it was for a client that sends `Last-Event-ID`.
            """
            self.feed.admit()
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            stream = self.feed.events(request.headers.get("last-event-id", ""))
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _add_keys(self) -> None:
        @self.router.get(
            "/monitoring/cache/keys/{key:cache_key}",
            response_model=models.KeyExplanation,
            summary="Where a key is, and why it hits or misses",
            responses={
                404: {"model": models.KeyExplanation, "description": "No tier holds it."},
                401: REFUSALS[401],
                403: REFUSALS[403],
                422: {"model": models.Detail, "description": "That cannot be a key, or a namespace."},
                503: REFUSALS[503],
            },
        )
        async def explain(
            request: Request,
            _: OptionalToken,
            key: Annotated[str, Path(description="1 to 1,024 bytes of UTF-8.")],
            value: Annotated[
                str | None, Query(description="true: with the value, for which the token is needed.")
            ] = None,
            namespace: Annotated[str | None, Query(description="Where to look; the root if not given.")] = None,
            owner: Annotated[str | None, Query(description="Whose entry: user:7, say.")] = None,
        ) -> Response:
            """What each tier holds of a key: age, ttl left, size, tags, priority, version; and the verdict over all."""
            with_value = (value or "").lower() in ("true", "1", "yes")
            if with_value:
                self._token.require(request.headers.get("authorization"))
            try:
                view = self._view(request, namespace, owner)
                found = await view.inspect(key)
            except InvalidKey as error:
                raise HTTPException(422, str(error)) from None
            except CacheClosed as error:
                raise HTTPException(503, str(error)) from None
            return _explained(found, with_value=with_value)

    def _view(self, request: Request, namespace: str | None, owner: str | None) -> Cache:
        """The part of the cache that a look is for; one that this process never met is opened only for the token.

        Otherwise anybody could fill memory with namespaces that nobody has.
        """
        cache = self._cache
        if namespace is not None:
            if namespace not in cache.analytics()["namespaces"]:
                self._token.require(request.headers.get("authorization"))
            cache = cache.namespace(namespace)
        return cache if owner is None else cache.owned_by(owner)

    def _add_pages(self) -> None:
        missing: dict[int | str, dict[str, Any]] = {404: {"model": models.Detail}}

        @self.router.get("/monitoring/cache/dashboard", include_in_schema=False)
        async def dashboard() -> Response:
            return page("index.html")

        @self.router.get("/monitoring/cache/dashboard/{name:path}", include_in_schema=False, responses=missing)
        async def asset(name: str) -> Response:
            return page(name) if name else RedirectResponse("../dashboard")  # relative: right under any prefix

    def _add_probes(self) -> None:
        cache = self._cache

        @self.router.get(
            "/healthz",
            response_model=models.HealthReport,
            summary="Whether the cache can serve",
            responses={503: {"model": models.HealthReport, "description": "The cache cannot serve."}},
        )
        async def healthz() -> Response:
            """200 while the cache can serve, if need be from fewer tiers (`degraded`); 503 when it cannot."""
            health = await cache.health()
            return _json(public(health.to_dict()), 200 if health.can_serve else 503)

    async def _measures(self) -> Measures:
        if self._workers is None:
            return self._cache.measures()
        try:
            return await asyncio.to_thread(self._workers.total)
        except OSError as error:
            raise HTTPException(503, f"the workers' figures cannot be added up: {error}") from None

    def _add_metrics(self) -> None:
        @self.router.get(
            "/metrics",
            summary="Prometheus text",
            response_class=PlainTextResponse,
            responses={
                501: {"model": models.Detail, "description": "The package prometheus-client is missing."},
                503: {"model": models.Detail, "description": "The folder that the workers share cannot be used."},
            },
        )
        async def metrics(request: Request) -> Response:
            """Every metric, in the format that the scraper asks for."""
            try:
                from genesis_cache.export.prometheus import exposition  # noqa: PLC0415  # needs the extra "metrics"
            except ModuleNotFoundError as missing:
                if missing.name != "prometheus_client":
                    raise
                told = "metrics need the package prometheus-client: pip install 'genesis-cache[metrics]'"
                raise HTTPException(501, told) from None
            measures = await self._measures()
            body, media_type = exposition(measures, request.headers.get("accept", ""))
            return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _json(document: object, status: int = 200) -> Response:
    """JSON of what may hold anything: what JSON has no word for is written as Python writes it."""
    told = plain(document)
    try:
        body = msgspec.json.encode(told)
    except UnicodeEncodeError:  # a half of a surrogate pair, which is text to Python
        body = msgspec.json.encode(spelled(told))
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})


def _explained(found: Inspection, *, with_value: bool) -> Response:
    document: Any = public(found.explanation.to_dict())
    if with_value and found.value is not MISSING:
        document["value"] = HIDDEN if found.sensitive else found.value
    held = any(tier.present for tier in found.explanation.tiers)
    return _json(document, 200 if held else 404)
