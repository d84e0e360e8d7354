"""Control: the POST routes. Each call is checked, limited, counted, done and written to the audit log."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from genesis_cache.cache import Cache
from genesis_cache.model.errors import CacheClosed
from genesis_cache.model.messages import escaped
from genesis_cache.model.outcome import Outcome
from genesis_cache.web.access import RateLimit, Token
from genesis_cache.web.bodies import (
    CLEAR_SCHEMA,
    INVALIDATE_SCHEMA,
    Clear,
    Invalidate,
    Refused,
    read_clear,
    read_invalidate,
)
from genesis_cache.web.models import Detail, Done

MOST_BODY_BYTES = 2**20
SHOWN_NAMES = 5  # of many keys or tags, in one audit line

BEARER = HTTPBearer(auto_error=False, description="The control token (CACHE_CONTROL_TOKEN).")
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Detail, "description": "The token is missing or wrong."},
    403: {"model": Detail, "description": "No token is configured, so nothing can be controlled."},
    413: {"model": Detail, "description": "The body is larger than 1 MiB."},
    415: {"model": Detail, "description": "The body is not declared as JSON."},
    422: {"model": Detail, "description": "The body says what cannot be meant."},
    429: {"model": Detail, "description": "Too many calls; Retry-After says when the next is taken."},
    503: {"model": Detail, "description": "The cache was closed."},
}

audit = logging.getLogger("genesis_cache.audit")
T = TypeVar("T", Clear, Invalidate)


class Control:
    """Does what the bodies say to one cache."""

    def __init__(self, cache: Cache, token: Token) -> None:
        self._cache = cache
        self._token = token
        self._clears = RateLimit(30, 5.0)
        self._invalidations = RateLimit(300, 100.0)
        self._wrong_tokens = RateLimit(100, 10.0)

    def add_to(self, router: APIRouter) -> None:
        """Put the two routes on a router."""

        @router.post(
            "/cache/clear",
            summary="Clear a namespace, or everything",
            responses=REFUSALS,
            openapi_extra=_body(CLEAR_SCHEMA),
        )
        async def clear(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]) -> Done:
            """Forget every entry of a namespace, or of the whole cache, in every tier or in one."""
            return await self._audited("clear", request, read_clear, self._clears, self._clear)

        @router.post(
            "/cache/invalidate",
            summary="Forget keys, tags, a pattern, or a user's entries",
            responses=REFUSALS,
            openapi_extra=_body(INVALIDATE_SCHEMA),
        )
        async def invalidate(
            request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
        ) -> Done:
            """Forget what one of `key`, `keys`, `tag`, `tags`, `pattern`, `user_id` names, in every tier."""
            return await self._audited("invalidate", request, read_invalidate, self._invalidations, self._invalidate)

    async def _audited(
        self,
        verb: str,
        request: Request,
        read: Callable[[bytes], T],
        limit: RateLimit,
        act: Callable[[T], Awaitable[Done]],
    ) -> Done:
        client = escaped(request.client.host if request.client else "unknown")
        said = "-"
        try:
            self._admit(request)
            limit.require(f"calls of /cache/{verb}")
            wanted = read(await _json_of(request))
            said = _told(wanted)
            done = await act(wanted)
        except Refused as error:
            _write_down(verb, said, "refused", "refused: 422", client)
            raise HTTPException(422, str(error)) from None
        except CacheClosed as error:
            _write_down(verb, said, "failed", "failed: the cache is closed", client)
            raise HTTPException(503, str(error)) from None
        except HTTPException as refusal:
            _write_down(verb, said, "refused", f"refused: {refusal.status_code}", client)
            raise
        except Exception as error:
            _write_down(verb, said, "failed", f"failed: {type(error).__name__}", client)
            raise
        owed = f" degraded={','.join(done.degraded)}" if done.degraded else ""
        _write_down(verb, said, done.status, f"{done.status} matched={done.matched}{owed}", client)
        return done

    def _admit(self, request: Request) -> None:
        try:
            self._token.require(request.headers.get("authorization"))
        except HTTPException as refusal:
            if refusal.status_code == 401:  # noqa: PLR2004  # a status, not a figure
                self._wrong_tokens.require("wrong tokens")
            raise

    async def _clear(self, wanted: Clear) -> Done:
        cache = self._cache if wanted.namespace is None else self._cache.namespace(wanted.namespace)
        if wanted.tier is not None:
            wanted_tier = _known_tier(self._cache, wanted.tier)
            matched = await cache.count() if wanted_tier == "memory" else None
            if wanted.dry_run:
                return _dry(matched)
            return _done(await cache.clear(tier=wanted.tier), matched)
        matched = await cache.count()
        return _dry(matched) if wanted.dry_run else _done(await cache.clear(), matched)

    async def _invalidate(self, wanted: Invalidate) -> Done:
        cache = self._cache if wanted.namespace is None else self._cache.namespace(wanted.namespace)
        names = wanted.names
        counted: dict[str, Any] = {}
        change: Callable[[], Awaitable[Outcome]]
        match wanted.by:
            case "key" | "keys":
                counted, change = {"keys": names}, partial(cache.delete, *names)
            case "tag" | "tags":
                counted, change = {"tags": names}, partial(cache.delete_by_tag, *names)
            case "pattern":
                counted, change = {"pattern": names[0]}, partial(cache.delete_by_pattern, names[0])
            case "user_id":
                cache = cache.owned_by(names[0])
                change = cache.clear
        matched = await cache.count(**counted)
        return _dry(matched) if wanted.dry_run else _done(await change(), matched)


def _write_down(verb: str, said: str, status: str, told: str, client: str) -> None:
    """One line of the audit log, and the same as fields of its record: what was not done is a warning."""
    level = logging.INFO if status in ("applied", "degraded", "dry_run") else logging.WARNING
    fields = {"cache_event": verb, "cache_target": said, "cache_status": status, "cache_client": client}
    audit.log(level, "%s %s %s client=%s", verb, said, told, client, extra=fields)


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _json_of(request: Request) -> bytes:
    """The raw body, of at most a mebibyte, of what says that it is JSON: a form of another site cannot say that."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        told = f"got {escaped(kind)}" if kind else "got no Content-Type"
        raise HTTPException(415, f"the body must be JSON, sent as Content-Type: application/json; {told}")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MOST_BODY_BYTES} bytes: send it in parts")
        parts.append(part)
    return b"".join(parts)


def _known_tier(cache: Cache, tier: str) -> str:
    """The kind of a tier named by kind or layer; `Refused` where the cache has none of that name."""
    rows = {layer: row["tier"] for layer, row in cache.analytics()["layer_statistics"].items()}
    kind = rows.get(tier, tier)
    if kind not in rows.values():
        known = ", ".join(f"{kind} ({layer})" for layer, kind in rows.items())
        raise Refused(f"there is no tier {escaped(tier)!r}: this cache has {known}")
    return str(kind)


def _dry(matched: int | None) -> Done:
    return Done(status="dry_run", degraded=[], matched=matched)


def _done(outcome: Outcome, matched: int | None) -> Done:
    return Done(status="applied" if outcome else "degraded", degraded=list(outcome.degraded), matched=matched)


def _told(wanted: Clear | Invalidate) -> str:
    """What was asked for, on one line whatever the names hold."""
    parts = [] if wanted.namespace is None else [f"namespace={_quoted(wanted.namespace)}"]
    if isinstance(wanted, Invalidate):
        shown = ",".join(_quoted(name) for name in wanted.names[:SHOWN_NAMES])
        more = len(wanted.names) - SHOWN_NAMES
        parts.insert(0, f"{wanted.by}={shown}{f' and {more} more' if more > 0 else ''}")
    else:
        parts += [] if wanted.namespace is not None else ["all"]
        parts += [] if wanted.tier is None else [f"tier={_quoted(wanted.tier)}"]
    return " ".join(parts)


def _quoted(name: str) -> str:
    """A name in quotes that nothing inside can end, control characters escaped, cut where it is long."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped(quoted)}"'
