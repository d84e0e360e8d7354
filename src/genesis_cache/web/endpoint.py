"""Cached responses: `endpoint`, a decorator for the handlers of FastAPI and Starlette.

A response is made by running the route once more for the cache alone, with the declared inputs only: path, query
string, the headers named by ``vary`` (and, in FastAPI, declared as parameters), and credentials only where an identity
is part of the key or the author wrote ``shared=True``. So what is not in the key cannot get into what others are given,
unless middleware made it of something else: what that left in the scope or in a ``ContextVar`` reaches the run.
"""

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from math import ceil
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from genesis_cache import LoadContext
from genesis_cache.cache import Cache
from genesis_cache.model.errors import LoaderTimeout
from genesis_cache.model.missing import MISSING, UNSET
from genesis_cache.model.options import EntryOptions
from genesis_cache.web import http_cache as http
from genesis_cache.web.handlers import Called, Facts, Tags, facts_of
from genesis_cache.web.http_cache import Asked, Reply
from genesis_cache.web.runs import MARK, Taken, Unfit, run_scope, taken

NAMESPACE = "http"
MOST_BODY_BYTES = 4 * 2**20
REVALIDATE_S = 1.0  # an answer younger than this satisfies even no-cache, so that no client can force a load each time
PASS_S = 10.0  # for which a response that could not be stored is not tried again
REMEMBERED = 4096  # keys that are passed, and views of users

HIT = (b"x-cache", b"HIT")
HANDLED = ("GET", "HEAD")
REFUSALS = (401, 403)
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

logger = logging.getLogger("genesis_cache")


def endpoint(
    cache: Cache,
    *,
    ttl: Any = UNSET,
    vary: Iterable[str] = (),
    identity: Any = None,
    shared: bool = False,
    tags: Iterable[str] = (),
    max_body_bytes: int = MOST_BODY_BYTES,
    **options: Any,
) -> Callable[[HandlerT], HandlerT]:
    """Cache the responses of a GET handler; put it right below the route's own decorator.

    ``ttl`` and further options are those of `Cache.set`. ``vary`` names request headers that are part of the key.
    ``identity`` makes answers personal: a parameter's name such as ``"user.id"``, a function of the request, or a
    FastAPI dependency, giving a text or a whole number, which becomes the owner ``user:<it>``, or None for nobody.
    ``shared=True`` says that credentials make no difference to the answer. With neither, a request with credentials,
    and a route behind a security scheme, is answered by the handler itself. ``tags`` may name parameters:
    ``"product:{product_id}"``. Responses of more than ``max_body_bytes`` are not stored.

    TypeError or ValueError for what cannot be meant.
    """
    if identity is not None and shared:
        msg = "identity= and shared=True contradict each other: an answer is somebody's, or everybody's"
        raise ValueError(msg)
    if "owner" in options:
        msg = "endpoint() takes no owner: name the identity that owns an answer, by identity="
        raise TypeError(msg)
    names = EntryOptions.of(tags=tags).tags
    given = options if ttl is UNSET else {"ttl": ttl, **options}
    EntryOptions.of(**given)  # refuses now what a request would
    settled = _Options(_names(vary), shared, identity, () if names is UNSET else names, max_body_bytes, given)

    def wrap(handler: HandlerT) -> HandlerT:
        cached = _Endpoint(cache, handler, settled)

        @wraps(handler)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return cached.quick(args, kwargs) or await cached.answer(args, kwargs)

        answer.__signature__ = cached.called.signature  # type: ignore[attr-defined]  # inspect and FastAPI read it
        answer.cache = cached.view  # type: ignore[attr-defined]  # where the answers are
        return answer  # type: ignore[return-value]  # it takes what the handler takes

    return wrap


class _Options(NamedTuple):
    vary: tuple[str, ...]
    shared: bool
    identity: Any
    tags: tuple[str, ...]
    max_body_bytes: int
    entry: dict[str, Any]


class _Call(NamedTuple):
    """How the framework called the handler."""

    request: Request
    response: Response | None
    """FastAPI's response in the making, to which dependencies have added headers; None under Starlette."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Turn(NamedTuple):
    """One request to be answered from the cache."""

    call: _Call
    asked: Asked
    view: Cache
    key: str
    is_personal: bool


class _Run:
    """What one request knows of the run that answered it."""

    def __init__(self) -> None:
        self.is_mine = False
        self.raised: HTTPException | None = None


class _Failed(Exception):
    """The handler answered with a failure that an old value may cover."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"the handler answered with status {reply.status}")
        self.reply = reply


class _Answer(Response):
    """A response ready to be sent: no encoding, no copying."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})
        if self.background is not None:
            await self.background()


class _Endpoint:
    """One decorated handler."""

    def __init__(self, cache: Cache, handler: Callable[..., Any], options: _Options) -> None:
        self.called = Called(handler, options.identity)
        self.view = cache.namespace(NAMESPACE)
        self._options = options
        self._tags = Tags(options.tags, self.called.own)
        self._name = f"{handler.__module__}.{handler.__qualname__}"
        self._wall = cache.clock.wall
        self._vary = options.vary
        self._apart = () if options.shared else ("authorization", "cookie")
        """Headers by which answers differ though they are not in the key: a request with them has another's road."""
        self._facts: dict[int, tuple[object, Facts]] = {}
        self._keys: dict[tuple[object, ...], str] = {}
        self._marked: frozenset[bytes] | None = None
        """Headers that take a request off the quick road; None until a request has shown what there is to know."""
        self._passes: dict[str, float] = {}
        self._owned: dict[str, Cache] = {}
        self._peeks = not options.entry.get("refresh_ahead") and cache.settings.cache_read_strategy != "REFRESH_AHEAD"
        """Whether a hit needs no look at its age by the engine."""
        entry = EntryOptions.of(**options.entry)
        default = cache.settings.cache_default_ttl
        content_type = entry.content_type if isinstance(entry.content_type, str) else ""
        self._ttl = cache.settings.content_types.get(content_type, default) if entry.ttl is UNSET else entry.ttl
        self._swr, self._sie = (
            0.0 if said is UNSET else said for said in (entry.stale_while_revalidate, entry.stale_if_error)
        )
        self._entry = {**options.entry, "ttl": self._ttl}

    # -- the quick road ----------------------------------------------------------------------------------------------

    def quick(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Answer | None:
        """The answer to a plain GET that is in memory; None where more has to be looked at."""
        marked = self._marked
        if marked is None:
            return None
        scope = (args[-1] if args else kwargs[self.called.request_name]).scope
        if scope["method"] != "GET" or MARK in scope:
            return None
        if not args and kwargs[self.called.response_name].raw_headers:
            return None
        for name, _ in scope["headers"]:
            if name in marked:
                return None
        key = self._keys.get(http.target(scope))
        if key is None:
            return None
        view = self.view if not self.called.identity.is_named else self._quick_view(args, kwargs)
        found = None if view is None else view.peek(key)
        return None if found is None else self._quick_answer(found)

    def _quick_view(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Cache | None:
        """The view of who asks, if that can be told without waiting and was seen before."""
        request = args[-1] if args else kwargs[self.called.request_name]
        who = self.called.identity.at_once(request, kwargs)
        return None if who is None else self._owned.get(who)

    def _quick_answer(self, found: tuple[Any, ...]) -> _Answer | None:
        status, headers, body, created, ttl, _ = found
        age = self._wall() - created
        if ttl is None or age < 0 or age >= ttl:
            return None
        now = ((b"age", b"%d" % age), (b"cache-status", b"genesis-cache; hit; ttl=%d" % ceil(ttl - age)), HIT)
        return _Answer(status, [*headers, *now], body)

    def _mark(self, vary: tuple[str, ...], key: str, scope: Scope) -> None:
        """After a request of this kind: the next like it may take the quick road."""
        if not self._peeks:
            return
        is_open = self._options.shared or self.called.identity.is_named
        marked = {b"cache-control", b"pragma", b"if-none-match", b"if-modified-since"}
        marked |= {name.encode() for name in vary} | (set() if is_open else http.CREDENTIALS)
        self._marked = frozenset(marked) if self._marked is None else self._marked | marked
        if not vary:
            if len(self._keys) >= REMEMBERED:
                self._keys.clear()
            self._keys[http.target(scope)] = key

    # -- a request comes in ------------------------------------------------------------------------------------------

    async def answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The response to a request: stored, or made now."""
        request, response, depended = self.called.split(args, kwargs)
        call, scope = _Call(request, response, args, kwargs), request.scope
        if scope.get(MARK) is self:
            if response is not None:
                response.raw_headers.clear()  # what dependencies added is for one client; the next run adds its own
            return await self.called.call(args, kwargs)
        if scope["method"] not in HANDLED:
            return await self.called.call(args, kwargs)
        vary, is_secured = self._declared(scope, response)
        asked = http.asked(scope["headers"], vary)
        who = None
        if self.called.identity.is_named:
            who = await self.called.identity.of(request, kwargs, depended, is_fastapi=response is not None)
        elif not self._options.shared and (asked.has_credentials or is_secured):
            return await self._pass(call, "credentials")
        if response is not None and response.raw_headers and "set-cookie" in response.headers:
            return await self._pass(call, "set-cookie")
        place = http.target_key(scope["path"], scope["query_string"], asked.varying)
        key = http.short_key(f"{self._name} {place}{http.routed_key(scope)}")
        view = self.view if who is None else self._view_of(who)
        self._mark(vary, key, scope)
        return await self._answered(_Turn(call, asked, view, key, who is not None))

    async def _answered(self, turn: _Turn) -> Any:
        if turn.asked.cache_control is not None:
            return await self._as_wished(turn)
        found = turn.view.peek(turn.key) if self._peeks else None
        return await self._looked_up(turn) if found is None else self._served(turn, Reply(*found), "hit")

    def _declared(self, scope: Scope, response: Response | None) -> tuple[tuple[str, ...], bool]:
        """The headers that are part of the key, and whether a security scheme stands before the handler."""
        if response is None:
            return self._vary, False
        route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
        known = self._facts.get(id(route))
        if known is None or known[0] is not route:
            facts = facts_of(scope)
            if facts.is_secured and not self._options.shared and not self.called.identity.is_named:
                logger.warning(
                    "%s is behind a security scheme, so its answers are not cached: "
                    "say whose they are by identity=, or that they are everybody's by shared=True",
                    self._name,
                )
            known = self._facts[id(route)] = (route, facts)
        declared = tuple(name for name in known[1].headers if name not in self._vary and _may_vary(name))
        return self._vary + declared, known[1].is_secured

    def _only(self, turn: _Turn) -> set[bytes] | None:
        """The headers that a run for the cache may see; None: all, because nobody else gets the answer."""
        if turn.is_personal:
            return None
        names = {name.encode() for name, _ in turn.asked.varying}
        return names | http.CREDENTIALS if self._options.shared else names

    def _view_of(self, who: str) -> Cache:
        view = self._owned.get(who)
        if view is None:
            if len(self._owned) >= REMEMBERED:
                self._owned.clear()
            view = self._owned[who] = self.view.owned_by(f"user:{who}")
        return view

    # -- roads -------------------------------------------------------------------------------------------------------

    async def _as_wished(self, turn: _Turn) -> Any:
        """The same, for a request that says something about caching."""
        wish = http.wish(turn.asked.cache_control or b"")
        if wish.no_store:
            return await self._pass(turn.call, "no-store")
        found = await turn.view.get(turn.key)
        reply = None if found is None else Reply(*found)
        if reply is not None and (wish.max_age is None or self._age(reply) <= max(wish.max_age, REVALIDATE_S)):
            return self._served(turn, reply, "hit")
        if wish.only_if_cached:
            headers = {"Cache-Status": f'{http.NAME}; fwd=uri-miss; detail="only-if-cached"', "X-Cache": "MISS"}
            raise HTTPException(504, "nothing is stored for this request, which asked for no more", headers)
        return await self._looked_up(turn, is_forced=wish.max_age is not None)

    async def _looked_up(self, turn: _Turn, *, is_forced: bool = False) -> Any:
        """From a lower tier, from another's run, or from one of its own."""
        if self._passes and self._passes.get(turn.key, 0.0) > monotonic():
            return await self._pass(turn.call, "not storable")
        run, began = _Run(), self._wall()

        async def load(context: LoadContext) -> tuple[Any, ...]:
            run.is_mine = True
            return await self._load(turn, context, run)

        read = turn.view.refresh if is_forced else turn.view.get_or_set
        tags = self._tags.of(turn.call.request, turn.call.kwargs)
        try:
            reply = Reply(*await read(turn.key, load, tags=tags, **self._entry))
        except Unfit as unfit:
            self._do_not_try(turn.key)
            return await self._pass(turn.call, str(unfit))
        except _Failed as failed:
            reply = failed.reply
        except LoaderTimeout as error:
            raise HTTPException(504, str(error)) from None
        if reply.problem and _is_for_another(reply, run):
            return await self._pass(turn.call, reply.problem)
        if run.raised is not None:
            raise run.raised
        if reply.created < began:  # found below, or an old one that covers a failure
            return self._served(turn, reply, "hit")
        why = "fwd=request" if is_forced else "fwd=uri-miss"
        return self._served(turn, reply, why if run.is_mine else f"{why}; collapsed")

    async def _pass(self, call: _Call, why: str) -> Any:
        """The handler's own answer to this request alone."""
        result = await self.called.call(call.args, call.kwargs)
        told = result if isinstance(result, Response) else call.response
        if told is not None:
            told.headers["X-Cache"] = "BYPASS"
            told.headers.append("Cache-Status", f'{http.NAME}; fwd=bypass; detail="{why}"')
        return result

    def _do_not_try(self, key: str) -> None:
        if len(self._passes) >= REMEMBERED:
            self._passes.clear()
        self._passes[key] = monotonic() + PASS_S

    # -- making and storing ------------------------------------------------------------------------------------------

    async def _load(self, turn: _Turn, context: LoadContext, run: _Run) -> tuple[Any, ...]:
        """Run the route for the cache, and say whether and for how long its response may be stored."""
        try:
            response = await self._run(turn)
        except HTTPException as error:
            if error.status_code in http.FAILED_STATUSES:
                raise
            run.raised = error
            response = Taken(0)
            response.status = error.status_code
        ttl = http.lifetime(response.headers, self._ttl, self._wall())
        problem = http.problem_of(response.status, response.headers, ttl) or self._learn(turn, response)
        reply = self._stored(turn, response, ttl, problem)
        if response.status in http.FAILED_STATUSES:
            raise _Failed(reply)
        if problem:
            context.skip()
            if problem != "vary" and not problem.startswith("status"):
                self._do_not_try(turn.key)
            if context.stale_value is not MISSING:
                await turn.view.delete(turn.key)
        elif ttl != self._ttl:
            context.ttl = ttl
        return tuple(reply)

    async def _run(self, turn: _Turn) -> Taken:
        call = turn.call
        scope = run_scope(call.request.scope, self, only=self._only(turn))
        if call.response is not None:
            return await taken(scope["route"].handle, scope, self._options.max_body_bytes)
        result = await self.called.call((*call.args[:-1], Request(scope)), call.kwargs)
        return await taken(result, scope, self._options.max_body_bytes)

    def _learn(self, turn: _Turn, response: Taken) -> str:
        """What depends on a header that is not in the key is not stored; from now on the header is part of it."""
        declared = {name for name, _ in turn.asked.varying} | set(self._apart)
        unknown = http.undeclared(response.headers, declared)
        learned = [name for name in unknown if _may_vary(name)]
        if len(learned) == len(unknown) and len(self._vary) + len(learned) <= http.MOST_VARY_NAMES:
            self._vary += tuple(name for name in learned if name not in self._vary)
            self._marked = None
            self._keys.clear()
        return "vary" if unknown else ""

    def _stored(self, turn: _Turn, response: Taken, ttl: float | None, problem: str) -> Reply:
        body, headers = response.body, list(response.headers)
        if not problem:
            scope = "private" if turn.is_personal else "public" if self._options.shared else ""
            control = http.control_of(ttl, self._swr, self._sie, scope=scope)
            vary = [*(name for name, _ in turn.asked.varying), *self._apart]
            headers = list(http.stored_headers(headers, body, response.status, control, vary))
        return Reply(response.status, tuple(headers), body, self._wall(), ttl, problem)

    # -- answering ---------------------------------------------------------------------------------------------------

    def _age(self, reply: Reply) -> float:
        return max(0.0, self._wall() - reply.created)

    def _served(self, turn: _Turn, reply: Reply, road: str) -> _Answer:
        age = self._age(reply)
        is_stale = reply.ttl is not None and age >= reply.ttl
        status, body = reply.status, reply.body
        headers = [*reply.headers]
        if not reply.problem:
            if http.is_unchanged(reply, turn.asked):
                status, body, headers = 304, b"", http.headers_304(reply.headers)
            if road == "hit":  # Age says that an answer was not made for this request (RFC 9111, 5.1)
                headers.append((b"age", b"%d" % age))
        word = b"MISS" if road != "hit" else b"STALE" if is_stale else b"HIT"
        headers += ((b"cache-status", http.status_of(reply, age, road)), (b"x-cache", word))
        added = turn.call.response
        if added is not None and added.raw_headers:
            headers += added.raw_headers
        return _Answer(status, headers, b"" if turn.call.request.scope["method"] == "HEAD" else body)


def _is_for_another(reply: Reply, run: _Run) -> bool:
    """Whether what cannot be stored is not this request's own answer.

    It is another's, unless it is a failure that meets all alike; or it may be due to what the run could not see.
    """
    if not run.is_mine:
        return reply.status not in http.FAILED_STATUSES
    return reply.problem == "vary" or reply.status in REFUSALS


def _may_vary(name: str) -> bool:
    return name.encode() not in http.CREDENTIALS | http.CONDITIONS and name != "cache-control"


def _names(vary: Iterable[str]) -> tuple[str, ...]:
    """Header names, lower case. TypeError for one string, ValueError for what names no header that may vary."""
    if isinstance(vary, str):
        msg = f"vary must be a list of header names: write vary=[{vary!r}]"
        raise TypeError(msg)
    names = tuple(dict.fromkeys(name.strip().lower() for name in vary))
    for name in names:
        if name == "*" or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            msg = f"vary names {name!r}, which is no header"
            raise ValueError(msg)
        if not _may_vary(name):
            msg = f"vary names {name!r}: say whose answer it is by identity=, not by the header itself"
            raise ValueError(msg)
    return names
