"""Cached responses: real FastAPI and Starlette apps, asked as clients would."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Host, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.shape.source import ROOT
from tests.web.conftest import Open, Site, client_of

from genesis_cache import Cache
from genesis_cache.web import endpoint

Answer = Callable[..., Awaitable[httpx2.Response]]
ALICE, BOB = {"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}


def user_of(request: Request) -> str | None:
    """Who asks, by a token that is the name."""
    return request.headers.get("authorization", "").removeprefix("Bearer ") or None


class Kitchen:
    """Counts what is made, so that tests see what came from the cache."""

    def __init__(self) -> None:
        self.made = 0

    def make(self, what: str = "") -> str:
        self.made += 1
        return f"{what}{self.made}"


@pytest.fixture
def kitchen() -> Kitchen:
    """Something to cache."""
    return Kitchen()


@asynccontextmanager
async def starlette(handler: Any, path: str = "/x", **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A Starlette app with one route."""
    async with client_of(Starlette(routes=[Route(path, handler)], **options)) as client:
        yield client


@asynccontextmanager
async def fastapi(build: Callable[[FastAPI], None]) -> AsyncIterator[httpx2.AsyncClient]:
    """A FastAPI app with what ``build`` adds."""
    app = FastAPI()
    build(app)
    async with client_of(app) as client:
        yield client


# -- hits and misses --------------------------------------------------------------------------------------------------


async def test_the_second_request_is_a_hit_with_the_same_bytes(site: Site, kitchen: Kitchen) -> None:
    """A handler is called once; the answers say MISS and HIT, and carry validators and a lifetime."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make("soup "), headers={"X-Cook": "Ana"})

    async with starlette(handler) as client:
        first = await client.get("/x")
        site.clock.advance(18)
        second = await client.get("/x")
    assert (first.text, second.text, kitchen.made) == ("soup 1", "soup 1", 1)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.headers["cache-status"] == "genesis-cache; fwd=uri-miss; stored"
    assert second.headers["cache-status"] == "genesis-cache; hit; ttl=42"
    assert "age" not in first.headers
    assert second.headers["age"] == "18"
    assert first.headers["cache-control"] == second.headers["cache-control"] == "max-age=60"
    assert first.headers["etag"] == second.headers["etag"]
    assert second.headers["content-type"] == "text/plain; charset=utf-8"
    assert second.headers["x-cook"] == "Ana"


async def test_age_and_lifetime_are_not_counted_twice(site: Site, kitchen: Kitchen) -> None:
    """max-age stays whole and Age is what has passed, so that a browser's own reckoning ends when ours does."""

    @endpoint(site.cache, ttl=100)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        await client.get("/x")
        for step, passed in ((1, 1), (49, 50), (49, 99)):
            site.clock.advance(step)
            answer = await client.get("/x")
            assert (answer.headers["age"], answer.headers["cache-control"]) == (str(passed), "max-age=100")
        site.clock.advance(2)
        assert (await client.get("/x")).headers["x-cache"] == "MISS"
    assert kitchen.made == 2


async def test_fastapi_serializes_validates_and_keeps_its_openapi(site: Site, kitchen: Kitchen) -> None:
    """Response models, status codes and parameters work as without the cache, and OpenAPI is the same."""

    class Product(BaseModel):
        number: int
        name: str
        cost: int = 3

    class Shown(BaseModel):
        number: int
        name: str

    def build(app: FastAPI, decorate: Callable[[Any], Any]) -> None:
        @app.get("/product/{number}", response_model=Shown, status_code=203)
        @decorate
        async def product(number: int, response: Response, full: bool = False) -> Product:
            """One product."""
            response.headers["X-Own"] = "kept"
            return Product(number=number, name=kitchen.make())

    plain, cached = FastAPI(), FastAPI()
    build(plain, lambda handler: handler)
    build(cached, endpoint(site.cache, ttl=60))
    assert cached.openapi() == plain.openapi()
    async with client_of(cached) as client:
        answers = [await client.get("/product/7?full=true") for _ in range(2)]
        assert (await client.get("/product/seven")).status_code == 422
    assert [answer.json() for answer in answers] == [{"number": 7, "name": "1"}] * 2
    assert [answer.status_code for answer in answers] == [203, 203]
    assert [answer.headers["x-own"] for answer in answers] == ["kept", "kept"]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_plain_and_async_handlers_are_cached_alike(site: Site, kitchen: Kitchen, is_async: bool) -> None:
    """A plain handler runs in a thread once, and then not at all."""
    if is_async:

        @endpoint(site.cache, ttl=60)
        async def handler() -> dict[str, str]:
            return {"made": kitchen.make()}
    else:

        @endpoint(site.cache, ttl=60)
        def handler() -> dict[str, str]:
            return {"made": kitchen.make()}

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        assert [(await client.get("/x")).json() for _ in range(3)] == [{"made": "1"}] * 3


async def test_handlers_of_modules_with_late_annotations_work(site: Site) -> None:
    """`from __future__ import annotations` makes no difference."""
    names: dict[str, Any] = {"endpoint": endpoint, "cache": site.cache}
    source = """
from __future__ import annotations
from fastapi import Request, Response
from pydantic import BaseModel
class Item(BaseModel):
    name: str
@endpoint(cache, ttl=60)
async def handler(number: int, request: Request, response: Response) -> Item:
    response.headers["X-Path"] = request.url.path
    return Item(name=str(number))
"""
    exec(compile(source, "late", "exec", dont_inherit=True), names)  # noqa: S102  # our own source
    async with fastapi(lambda app: app.get("/x/{number}")(names["handler"])) as client:
        answers = [await client.get("/x/7") for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"name": "7"}] * 2
    assert answers[1].headers["x-path"] == "/x/7"


async def test_paths_and_queries_are_different_answers(site: Site, kitchen: Kitchen) -> None:
    """What looks alike after decoding is still told apart."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        kitchen.make()
        return PlainTextResponse(f"{request.scope['path']}|{request.url.query}")

    async with starlette(handler, "/{rest:path}") as client:
        paths = ["/a", "/a?", "/a?b", "/a%3Fb", "/a%253Fb", "/a?b=1&c=2", "/a?b=1%26c=2", "/A", "/a/", "/a%20b", "/a+b"]
        bodies = {}
        for path in paths * 2:
            answer = await client.get(path)
            assert bodies.setdefault(path, answer.text) == answer.text
    assert len(set(bodies.values())) >= len(paths) - 1  # /a and /a? are one resource
    assert kitchen.made == len(paths) - 1


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
async def test_a_tenant_named_by_the_host_has_answers_of_its_own(site: Site, framework: str) -> None:
    """What routing takes from the host is part of the key: no tenant is given another's page, on a repeat neither."""

    @endpoint(site.cache, ttl=60)
    async def tenant(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.path_params["tenant"])

    inner: Any = FastAPI() if framework == "fastapi" else Starlette(routes=[Route("/who", tenant)])
    if isinstance(inner, FastAPI):
        inner.get("/who")(tenant)
    async with client_of(Starlette(routes=[Host("{tenant}.example", inner)])) as client:
        for word in ("MISS", "HIT", "HIT"):
            for name in ("alice", "bob"):
                answer = await client.get("/who", headers={"Host": f"{name}.example"})
                assert (answer.text, answer.headers["x-cache"]) == (name, word)


async def test_a_target_of_any_length_is_cached(site: Site, kitchen: Kitchen) -> None:
    """A query string longer than a key may be is hashed, not refused."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        for tail in ("a", "b", "a", "b"):
            await client.get(f"/x?{'y' * 5000}{tail}")
    assert kitchen.made == 2


async def test_twenty_at_once_make_one_run(site: Site, kitchen: Kitchen) -> None:
    """Requests that come together share one run: one MISS, the others collapsed into it."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.02)
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        answers = await asyncio.gather(*(client.get("/x") for _ in range(20)))
    assert kitchen.made == 1
    assert {answer.text for answer in answers} == {"1"}
    said = [answer.headers["cache-status"] for answer in answers]
    assert sum("collapsed" in one for one in said) == 19


async def test_a_stored_answer_outlives_the_process_that_made_it(open_site: Open, kitchen: Kitchen) -> None:
    """On disk, answers are there for the next process, with their headers and their age."""

    def made(cache: Cache) -> Any:
        @endpoint(cache, ttl=60)
        async def handler(request: Request) -> Response:
            return PlainTextResponse(kitchen.make("ñ"), headers={"X-Own": "1"})

        return handler

    first = await open_site("disk")
    async with starlette(made(first.cache)) as client:
        await client.get("/x")
    await first.cache.close()
    second = await open_site("disk")
    async with starlette(made(second.cache)) as client:
        answer = await client.get("/x")
    assert (answer.text, answer.headers["x-own"], answer.headers["x-cache"]) == ("ñ1", "1", "HIT")


async def test_two_handlers_under_one_path_do_not_meet(site: Site) -> None:
    """Apps that share a cache share no answers of different functions."""

    def one() -> Any:
        @endpoint(site.cache, ttl=60)
        async def one_handler(request: Request) -> Response:
            return PlainTextResponse("one")

        return one_handler

    @endpoint(site.cache, ttl=60)
    async def two(request: Request) -> Response:
        return PlainTextResponse("two")

    async with starlette(one()) as first, starlette(two) as second:
        assert (await first.get("/x")).text == "one"
        assert (await second.get("/x")).text == "two"


# -- whose answer it is -----------------------------------------------------------------------------------------------


def apps_of_me(cache: Cache, **options: Any) -> Iterator[tuple[str, Any]]:
    """`/me` as an author would write it who thinks of nothing, in both frameworks."""

    @endpoint(cache, ttl=60, **options)
    async def starlette_me(request: Request) -> Response:
        return PlainTextResponse(user_of(request) or "nobody")

    @endpoint(cache, ttl=60, **options)
    async def fastapi_me(request: Request) -> str:
        return user_of(request) or "nobody"

    yield "starlette", Starlette(routes=[Route("/me", starlette_me)])
    app = FastAPI()
    app.get("/me", response_class=PlainTextResponse)(fastapi_me)
    yield "fastapi", app


@pytest.mark.parametrize(("options", "varies"), [({}, True), ({"identity": user_of}, True), ({"shared": True}, False)])
async def test_caches_on_the_way_are_told_that_credentials_matter(
    site: Site, options: dict[str, Any], varies: bool
) -> None:
    """A browser that kept an answer from before the login does not show it afterwards."""
    for _, app in apps_of_me(site.cache, **options):
        async with client_of(app) as client:
            for _ in range(2):
                vary = (await client.get("/me")).headers.get("vary", "")
                assert ("Cookie" in vary, "Authorization" in vary) == (varies, varies)


@pytest.mark.parametrize("name", ["X-Api-Key", "X-Forwarded-User"])
async def test_what_middleware_makes_of_a_header_is_not_shared(site: Site, name: str) -> None:
    """Who is told apart by a header of proxies and keys gets an answer of his own, unless the answer varies by it."""

    def who(app: ASGIApp) -> ASGIApp:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            found = dict(scope.get("headers", ())).get(name.lower().encode(), b"nobody")
            await app({**scope, "state": {**scope.get("state", {}), "user": found.decode()}}, receive, send)

        return run

    @endpoint(site.cache, ttl=60)
    async def plain(request: Request) -> Response:
        return PlainTextResponse(request.state.user)

    @endpoint(site.cache, ttl=60, vary=[name])
    async def varying(request: Request) -> Response:
        return PlainTextResponse(request.state.user)

    for handler, verdicts in ((plain, ["BYPASS"] * 3), (varying, ["MISS", "MISS", "HIT"])):
        async with starlette(handler, middleware=[Middleware(who)]) as client:
            answers = [await client.get("/x", headers={name: user}) for user in ("alice", "bob", "alice")]
            assert [answer.text for answer in answers] == ["alice", "bob", "alice"]
            assert [answer.headers["x-cache"] for answer in answers] == verdicts


async def test_a_handler_that_says_vary_cookie_is_cached_for_who_has_none(site: Site, kitchen: Kitchen) -> None:
    """Session middleware says so on every answer; who has a cookie is answered by the handler anyway."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make(), headers={"Vary": "Cookie"})

    @endpoint(site.cache, ttl=60, shared=True)
    async def contradiction(request: Request) -> Response:
        return PlainTextResponse(kitchen.make(), headers={"Vary": "Cookie"})

    async with starlette(handler) as client:
        kinds = [(await client.get("/x", headers=who)).headers["x-cache"] for who in ({}, {}, {"Cookie": "a=b"})]
    assert kinds == ["MISS", "HIT", "BYPASS"]
    async with starlette(contradiction) as client:
        assert len({(await client.get("/x")).text for _ in range(3)}) == 3


@pytest.mark.parametrize("headers", ["Authorization", "Cookie"])
async def test_bob_never_gets_what_alice_was_given(site: Site, headers: str) -> None:
    """A request with credentials is never answered from, or stored for, others, if the author said nothing."""
    for _, app in apps_of_me(site.cache):
        async with client_of(app) as client:
            for name in ("alice", "bob", "alice"):
                sent = {"Authorization": f"Bearer {name}"} | ({"Cookie": f"sid={name}"} if headers == "Cookie" else {})
                answer = await client.get("/me", headers=sent)
                assert answer.text == name
                assert answer.headers["x-cache"] == "BYPASS"
                assert 'detail="credentials"' in answer.headers["cache-status"]
                assert "max-age" not in answer.headers.get("cache-control", "")
            assert (await client.get("/me")).text == "nobody"
            assert (await client.get("/me", headers=ALICE)).text == "alice"


async def test_with_an_identity_each_has_answers_of_their_own(site: Site, kitchen: Kitchen) -> None:
    """`identity=` makes answers personal: cached for each user, private, and gone with everything of the user."""

    @endpoint(site.cache, ttl=60, identity=user_of)
    async def me(request: Request) -> Response:
        return PlainTextResponse(f"{user_of(request)} {kitchen.make()}")

    async with starlette(me, "/me") as client:
        texts = [(await client.get("/me", headers=who)).text for who in (ALICE, BOB, ALICE, BOB, {})]
        assert texts == ["alice 1", "bob 2", "alice 1", "bob 2", "None 3"]
        answer = await client.get("/me", headers=ALICE)
        assert answer.headers["cache-control"] == "private, max-age=60"
        done = await site.post("/cache/invalidate", {"user_id": "alice"})
        assert done.json()["matched"] == 1
        assert (await client.get("/me", headers=ALICE)).text == "alice 4"
        assert (await client.get("/me", headers=BOB)).text == "bob 2"


class User(BaseModel):
    """Whoever is logged in."""

    id: int
    name: str


def current_user(authorization: Annotated[str | None, Header()] = None) -> User:
    """A dependency as FastAPI's users write it."""
    names = {"Bearer alice": User(id=1, name="alice"), "Bearer bob": User(id=2, name="bob")}
    if authorization not in names:
        raise HTTPException(401, "log in")
    return names[authorization]


def current_id(user: Annotated[User, Depends(current_user)]) -> int:
    """The same, as a number."""
    return user.id


@pytest.mark.parametrize("identity", ["user.id", current_id])
async def test_an_identity_may_be_a_parameter_or_a_dependency(site: Site, kitchen: Kitchen, identity: Any) -> None:
    """FastAPI solves the dependency for each request; who is refused by it gets nothing from the cache."""

    @endpoint(site.cache, ttl=60, identity=identity)
    async def me(user: Annotated[User, Depends(current_user)]) -> dict[str, str]:
        return {"name": user.name, "made": kitchen.make()}

    async with fastapi(lambda app: app.get("/me")(me)) as client:
        answers = [(await client.get("/me", headers=who)).json() for who in (ALICE, BOB, ALICE, BOB)]
        refused = await client.get("/me")
    assert answers == [{"name": "alice", "made": "1"}, {"name": "bob", "made": "2"}] * 2
    assert refused.status_code == 401


async def test_dependencies_do_not_make_new_keys(site: Site, kitchen: Kitchen) -> None:
    """A new session object for each request is no new answer."""

    class Session:
        pass

    async def session() -> AsyncIterator[Session]:
        yield Session()

    @endpoint(site.cache, ttl=60)
    async def handler(session: Annotated[Session, Depends(session)]) -> str:
        return kitchen.make()

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        assert [(await client.get("/x")).json() for _ in range(3)] == ["1"] * 3


async def test_shared_answers_are_everybodys(site: Site, kitchen: Kitchen) -> None:
    """With `shared=True` credentials make no difference, and the answer is public."""

    @endpoint(site.cache, ttl=60, shared=True)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        answers = [await client.get("/x", headers=who) for who in (ALICE, BOB, {}, {"Cookie": "a=b"})]
    assert [answer.text for answer in answers] == ["1"] * 4
    assert answers[1].headers["cache-control"] == "public, max-age=60"


async def test_a_shared_answer_behind_a_login_needs_the_login(site: Site, kitchen: Kitchen) -> None:
    """Dependencies run for each request, hits too: who may not see it does not get it from the cache."""

    @endpoint(site.cache, ttl=60, shared=True)
    async def handler(user: Annotated[User, Depends(current_user)]) -> str:
        return kitchen.make()

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        assert (await client.get("/x")).status_code == 401
        assert (await client.get("/x", headers=ALICE)).json() == "1"
        assert (await client.get("/x")).status_code == 401
        assert (await client.get("/x", headers={"Authorization": "Bearer eve"})).status_code == 401
        assert (await client.get("/x", headers=BOB)).json() == "1"


@pytest.mark.parametrize("where", ["handler", "route", "router"])
@pytest.mark.parametrize("scheme", [HTTPBearer(auto_error=False), APIKeyHeader(name="x-key", auto_error=False)])
async def test_what_is_behind_a_security_scheme_is_not_shared(
    site: Site, kitchen: Kitchen, where: str, scheme: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """However a route is secured, its answers are not cached until its author says whose they are."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> str:
        return kitchen.make()

    @endpoint(site.cache, ttl=60)
    async def with_parameter(request: Request, key: Annotated[Any, Security(scheme)] = None) -> str:
        return kitchen.make()

    def build(app: FastAPI) -> None:
        chosen = with_parameter if where == "handler" else handler
        router = APIRouter(dependencies=[Depends(scheme)] if where == "router" else [])
        router.get("/x", dependencies=[Depends(scheme)] if where == "route" else [])(chosen)
        app.include_router(router, prefix="/api")

    async with fastapi(build) as client:
        answers = [await client.get("/api/x") for _ in range(2)]
    assert [answer.json() for answer in answers] == ["1", "2"]
    assert {answer.headers["x-cache"] for answer in answers} == {"BYPASS"}
    assert sum("identity=" in record.getMessage() for record in caplog.records) == 1


async def test_a_credential_of_ones_own_kind_never_reaches_a_shared_answer(site: Site) -> None:
    """A key in a header that nobody declared is not seen by the run for the cache, so its answer cannot leak."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        key = request.headers.get("x-tenant-key")
        if key is None:
            return PlainTextResponse("who are you?", 401)
        return PlainTextResponse(f"the accounts of {key}")

    async with starlette(handler) as client:
        for key in ("acme", "globex", "acme"):
            assert (await client.get("/x", headers={"X-Tenant-Key": key})).text == f"the accounts of {key}"
        assert (await client.get("/x")).status_code == 401


class Sessions:
    """A session of the cookie's name, as session middleware puts it into the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookie = dict(scope.get("headers", [])).get(b"cookie", b"").decode()
        scope["session"] = {"name": cookie} if cookie else {}
        await self._app(scope, receive, send)


async def test_sessions_are_not_shared(site: Site) -> None:
    """Who has a session is answered by the handler; a run for others has an empty one."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(request.session.get("name", "nobody"))

    @endpoint(site.cache, ttl=60, vary=["X-Kind"])
    async def odd(request: Request) -> Response:
        return PlainTextResponse(request.session.get("name", "nobody"))

    routes = [Route("/x", handler), Route("/odd", odd)]
    async with client_of(Starlette(routes=routes, middleware=[Middleware(Sessions)])) as client:
        for path in ("/x", "/odd"):
            assert (await client.get(path, headers={"Cookie": "alice"})).text == "alice"
            assert (await client.get(path)).text == "nobody"
            assert (await client.get(path, headers={"Cookie": "bob"})).text == "bob"
            assert (await client.get(path)).headers["x-cache"] == "HIT"


@pytest.mark.parametrize("kind", ["async function", "function of a coroutine", "object"])
async def test_an_identity_may_take_its_time(site: Site, kitchen: Kitchen, kind: str) -> None:
    """It may be async, or hand on what is, and answers stay each user's own."""

    async def slow(request: Request) -> str | None:
        await asyncio.sleep(0)
        return user_of(request)

    def handing_on(request: Request) -> Awaitable[str | None]:
        return slow(request)

    class Finder:
        async def __call__(self, request: Request) -> str | None:
            return await slow(request)

    kinds = {"async function": slow, "function of a coroutine": handing_on, "object": Finder()}

    @endpoint(site.cache, ttl=60, identity=kinds[kind])
    async def me(request: Request) -> Response:
        return PlainTextResponse(f"{user_of(request)} {kitchen.make()}")

    async with starlette(me, "/me") as client:
        texts = [(await client.get("/me", headers=who)).text for who in (ALICE, BOB) * 3]
    assert texts == ["alice 1", "bob 2"] * 3


@pytest.mark.parametrize("identity", [7.5, True, b"x", "", {"id": 7}])
async def test_an_identity_that_is_no_name_is_an_error_not_a_guess(site: Site, identity: Any) -> None:
    """A handler whose identity gives nonsense fails loudly, and never falls back to sharing."""

    @endpoint(site.cache, ttl=60, identity=lambda request: identity)
    async def handler(request: Request) -> Response:
        return PlainTextResponse("x")

    async with starlette(handler) as client:
        with pytest.raises(TypeError, match="identity= must give"):
            await client.get("/x")


# -- declared inputs --------------------------------------------------------------------------------------------------


async def test_each_language_gets_its_own_answer(site: Site, kitchen: Kitchen) -> None:
    """`vary=` puts a header into the key and into the answer's Vary."""

    @endpoint(site.cache, ttl=60, vary=["Accept-Language"])
    async def handler(request: Request) -> Response:
        return PlainTextResponse(f"{request.headers.get('accept-language')} {kitchen.make()}")

    async with starlette(handler) as client:
        texts = [(await client.get("/x", headers={"Accept-Language": one})).text for one in ("es", "en", "es", "en")]
        answer = await client.get("/x", headers={"Accept-Language": "es"})
    assert texts == ["es 1", "en 2", "es 1", "en 2"]
    assert answer.headers["vary"] == "Accept-Language, Authorization, Cookie"


async def test_a_response_that_says_vary_is_believed_without_being_told(site: Site, kitchen: Kitchen) -> None:
    """An author who forgot `vary=` but sends Vary gets right answers from the first, and cached ones from then on."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        language = request.headers.get("accept-language", "none")
        return PlainTextResponse(f"{language} {kitchen.make()}", headers={"Vary": "Accept-Language"})

    async with starlette(handler) as client:
        seen = []
        for language in ("es", "en", "es", "en", "es"):
            answer = await client.get("/x", headers={"Accept-Language": language})
            assert answer.text.startswith(language)
            seen.append(answer.headers["x-cache"])
    assert seen == ["BYPASS", "MISS", "MISS", "HIT", "HIT"]


async def test_header_parameters_of_fastapi_are_declared_inputs(site: Site, kitchen: Kitchen) -> None:
    """A handler, or a dependency, that takes a header as a parameter has it in the key."""

    def region(x_region: Annotated[str, Header()] = "eu") -> str:
        return x_region

    @endpoint(site.cache, ttl=60)
    async def handler(region: Annotated[str, Depends(region)], accept_language: Annotated[str, Header()] = "en") -> str:
        return f"{region} {accept_language} {kitchen.make()}"

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        asked = [{}, {"X-Region": "us"}, {"Accept-Language": "es"}, {}, {"X-Region": "us"}, {"Accept-Language": "es"}]
        texts = [(await client.get("/x", headers={"Accept-Language": "en", **one})).json() for one in asked]
        answer = await client.get("/x")
    assert texts == ["eu en 1", "us en 2", "eu es 3"] * 2
    assert set(answer.headers["vary"].split(", ")) == {"Accept-Language", "X-Region", "Authorization", "Cookie"}


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Original-URL",
        "User-Agent",
        "Referer",
        "Origin",
        "X-Anything",
    ],
)
async def test_what_is_not_declared_cannot_poison_an_answer(site: Site, name: str) -> None:
    """No undeclared header has any effect on what is stored: not by itself, not by the URL made of it."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        seen = f"{request.headers.get(name)} {request.url_for('handler')} {request.client}"
        return PlainTextResponse(seen)

    async with starlette(handler) as client:
        poisoned = await client.get("/x", headers={name: "evil.example"})
        clean = await client.get("/x")
    assert poisoned.headers["x-cache"] == "MISS"
    assert clean.headers["x-cache"] == "HIT"
    assert "evil" not in clean.text


async def test_tags_are_written_from_parameters(site: Site, kitchen: Kitchen) -> None:
    """`tags=["product:{product_id}"]` works for FastAPI's arguments and for Starlette's path parameters."""

    @endpoint(site.cache, ttl=60, tags=["products", "product:{product_id}"])
    async def product(product_id: int) -> str:
        return kitchen.make()

    @endpoint(site.cache, ttl=60, tags=["product:{product_id}"])
    async def page(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async def kinds(*clients: httpx2.AsyncClient) -> list[str]:
        return [(await client.get(f"/p/{n}")).headers["x-cache"] for client in clients for n in (1, 2)]

    build = lambda app: app.get("/p/{product_id}")(product)  # noqa: E731  # one line, used once
    async with fastapi(build) as one, starlette(page, "/p/{product_id}") as two:
        assert await kinds(one, two) == ["MISS"] * 4
        await site.cache.delete_by_tag("product:1")
        assert await kinds(one, two) == ["MISS", "HIT", "MISS", "HIT"]
        await site.cache.delete_by_tag("products")
        assert await kinds(one, two) == ["MISS", "MISS", "HIT", "HIT"]


# -- validation -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fixed(site: Site) -> Any:
    """A handler with a fixed body, whose ETag is known."""

    @endpoint(site.cache, ttl=60, vary=["Accept-Language"])
    async def handler(request: Request) -> Response:
        headers = {"Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT", "X-Own": "1", "Content-Location": "/x.txt"}
        return PlainTextResponse("body", headers=headers)

    return handler


def etag_elsewhere(seed: str) -> str:
    """What another process makes of the same body."""
    program = "from genesis_cache.web.http_cache import etag_of; print(etag_of(b'body').decode())"
    environ = {"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout.strip()  # noqa: S603  # our own


async def test_the_etag_is_strong_quoted_and_the_same_everywhere(fixed: Any) -> None:
    """It is made from the body's bytes, so that every process, with any hash seed, makes the same."""
    async with starlette(fixed) as client:
        etag = (await client.get("/x")).headers["etag"]
    assert {await asyncio.to_thread(etag_elsewhere, seed) for seed in ("0", "1")} == {etag}
    assert etag.startswith('"')
    assert etag.endswith('"')


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"other", {etag}', 304),
        ('W/"a,b" ,W/{etag}', 304),
        ("*", 304),
        (" * ", 304),
        ('"other"', 200),
        ("{bare}", 200),
        ("", 200),
        ('"*"', 200),
        ("{etag}x", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_has_the_answer_already_gets_304(fixed: Any, sent: str, status: int, method: str) -> None:
    """If-None-Match: a list, weak tags and `*` are understood; the 304 repeats what RFC 9110 wants."""
    async with starlette(fixed) as client:
        etag = (await client.get("/x")).headers["etag"]
        wanted = sent.format(etag=etag, bare=etag.strip('"'))
        answer = await client.request(method, "/x", headers={"If-None-Match": wanted})
    assert answer.status_code == status
    if status == 304:
        assert answer.content == b""
        assert answer.headers["etag"] == etag
        assert answer.headers["cache-control"] == "max-age=60"
        assert answer.headers["vary"] == "Accept-Language, Authorization, Cookie"
        assert answer.headers["content-location"] == "/x.txt"
        assert {"content-type", "content-length", "x-own"} & set(answer.headers) == set()


async def test_an_etag_of_another_page_is_no_304(site: Site) -> None:
    """A validator counts for the page it was given for only."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    async with starlette(handler, "/{rest:path}") as client:
        etag = (await client.get("/a")).headers["etag"]
        await client.get("/b")
        assert (await client.get("/b", headers={"If-None-Match": etag})).text == "/b"


async def test_the_first_answer_may_be_a_304_too(fixed: Any) -> None:
    """After a restart, a client that still has the body does not get it again."""
    async with starlette(fixed) as client:
        etag = (await client.get("/x", headers={"Accept-Language": "es"})).headers["etag"]
        answer = await client.get("/x", headers={"If-None-Match": etag, "Accept-Language": "fr"})
    assert (answer.status_code, answer.headers["x-cache"]) == (304, "MISS")


@pytest.mark.parametrize(
    ("since", "status"),
    [
        ("Sat, 21 Nov 2026 10:00:00 GMT", 304),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 304),
        ("Sat, 21 Nov 2026 09:59:59 GMT", 200),
        ("yesterday", 200),
    ],
)
async def test_if_modified_since_counts_where_there_is_no_tag(fixed: Any, since: str, status: int) -> None:
    """Dates are compared with the answer's own Last-Modified; If-None-Match goes first."""
    async with starlette(fixed) as client:
        assert (await client.get("/x", headers={"If-Modified-Since": since})).status_code == status
        both = {"If-Modified-Since": since, "If-None-Match": '"other"'}
        assert (await client.get("/x", headers=both)).status_code == 200


async def test_conditions_and_ranges_do_not_reach_the_handler(site: Site) -> None:
    """A handler that answers conditions by itself cannot put a 304 or a part into the cache."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        if "if-none-match" in request.headers or "range" in request.headers:
            return Response(status_code=304)
        return PlainTextResponse("whole", headers={"ETag": '"own"'})

    async with starlette(handler) as client:
        first = await client.get("/x", headers={"If-None-Match": '"x"', "Range": "bytes=0-1"})
        assert (first.status_code, first.text, first.headers["etag"]) == (200, "whole", '"own"')
        assert (await client.get("/x", headers={"If-None-Match": '"own"'})).status_code == 304


async def test_head_is_the_same_answer_without_its_body(site: Site, kitchen: Kitchen) -> None:
    """HEAD fills and uses what GET stores."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} {kitchen.make()}")

    async with starlette(handler) as client:
        head = await client.head("/x")
        get = await client.get("/x")
        again = await client.head("/x")
    assert (head.content, get.text, again.content) == (b"", "GET 1", b"")
    assert head.headers["content-length"] == get.headers["content-length"] == "5"
    assert [one.headers["x-cache"] for one in (head, get, again)] == ["MISS", "HIT", "HIT"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_only_get_and_head_are_cached(site: Site, kitchen: Kitchen, method: str) -> None:
    """What changes something is done each time."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    app = Starlette(routes=[Route("/x", handler, methods=[method])])
    async with client_of(app) as client:
        answers = [await client.request(method, "/x") for _ in range(2)]
    assert [answer.text for answer in answers] == ["1", "2"]
    assert "x-cache" not in answers[0].headers


# -- what is not stored -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"Set-Cookie": "sid=1"}),
        (200, {"Cache-Control": "no-store"}),
        (200, {"Cache-Control": "private, max-age=60"}),
        (200, {"Cache-Control": "max-age=60, No-Cache"}),
        (200, {"Cache-Control": 'private="x"'}),
        (200, {"Cache-Control": "max-age=0"}),
        (200, {"Cache-Control": "s-maxage=0, max-age=60"}),
        (200, {"Vary": "*"}),
        (200, {"Expires": "0"}),
        (200, {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        *[(status, {}) for status in (201, 202, 206, 302, 303, 307, 400, 403, 404, 410, 418, 429, 500, 501, 502, 503)],
    ],
)
async def test_what_must_not_be_stored_is_not(
    site: Site, kitchen: Kitchen, status: int, headers: dict[str, str]
) -> None:
    """Errors, cookies, and what the handler calls private are made anew each time, for each client."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make(), status, headers)

    async with starlette(handler) as client:
        texts = [await client.get("/x") for _ in range(3)]
    assert {answer.status_code for answer in texts} == {status}
    assert len({answer.text for answer in texts}) == 3
    for name, value in headers.items():
        assert texts[2].headers[name] == value
    assert site.cache.analytics()["layer_statistics"]["l1"]["entries"] == 0


async def test_a_cookie_for_one_is_not_given_to_those_who_waited(site: Site, kitchen: Kitchen) -> None:
    """Requests that come together share only what could be stored."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.01)
        response = PlainTextResponse("x")
        response.set_cookie("sid", kitchen.make())
        return response

    async with starlette(handler) as client:
        answers = await asyncio.gather(*(client.get("/x") for _ in range(8)))
    assert len({answer.headers["set-cookie"] for answer in answers}) == 8


async def test_a_cookie_that_a_dependency_sets_makes_the_answer_personal(site: Site, kitchen: Kitchen) -> None:
    """A tracker's cookie is each client's own, so its answer is not stored, here or on the way."""

    def tracker(response: Response) -> None:
        response.set_cookie("visit", kitchen.make())

    @endpoint(site.cache, ttl=60)
    async def handler(_: Annotated[None, Depends(tracker)]) -> str:
        return "x"

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        answers = [await client.get("/x") for _ in range(2)]
    assert [answer.headers["set-cookie"].split(";")[0] for answer in answers] == ["visit=1", "visit=2"]
    assert "max-age" not in answers[1].headers.get("cache-control", "")


async def test_headers_that_dependencies_add_are_each_requests_own(site: Site, kitchen: Kitchen) -> None:
    """A request id from a dependency is not stored with the answer."""

    def request_id(response: Response) -> None:
        response.headers["X-Request-Id"] = kitchen.make("r")

    @endpoint(site.cache, ttl=60)
    async def handler(_: Annotated[None, Depends(request_id)], response: Response) -> str:
        response.headers["X-Own"] = "stored"
        return "x"

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        answers = [await client.get("/x") for _ in range(3)]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == 3
    assert [answer.headers["x-own"] for answer in answers] == ["stored"] * 3


async def test_an_exception_reaches_the_apps_own_handler(site: Site, kitchen: Kitchen) -> None:
    """HTTPException is answered by the app as without the cache, and not stored."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        raise HTTPException(404, kitchen.make("no soup "))

    async def told(_: Request, error: Exception) -> Response:
        return PlainTextResponse(f"own: {getattr(error, 'detail', '')}", 404)

    app = Starlette(routes=[Route("/x", handler)], exception_handlers={404: told})
    async with client_of(app) as client:
        assert [(await client.get("/x")).text for _ in range(2)] == ["own: no soup 1", "own: no soup 2"]
    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        assert (await client.get("/x")).json() == {"detail": "no soup 3"}


async def test_a_crash_is_a_crash(site: Site) -> None:
    """An error in a handler is raised as it is, and the next request tries again."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        raise KeyError("boom")

    async with starlette(handler) as client:
        for _ in range(2):
            with pytest.raises(KeyError, match="boom"):
                await client.get("/x")


async def test_a_stream_without_an_end_is_passed_on(site: Site, kitchen: Kitchen) -> None:
    """Server-sent events begin to arrive at once; nothing is kept of them."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            for n in range(3):
                yield b"data: %d\n\n" % n

        kitchen.make()
        return StreamingResponse(events(), media_type="text/event-stream")

    async with starlette(handler) as client:
        answers = [await client.get("/x") for _ in range(3)]
    assert [answer.text.count("data:") for answer in answers] == [3, 3, 3]
    assert answers[0].headers["x-cache"] == "BYPASS"
    assert kitchen.made == 4  # one run in vain, which is remembered


async def test_a_body_that_is_too_large_is_passed_on(site: Site, kitchen: Kitchen) -> None:
    """What would crowd the cache is streamed to each client instead."""

    @endpoint(site.cache, ttl=60, max_body_bytes=1000)
    async def handler(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        kitchen.make()
        return StreamingResponse(parts(), media_type="text/plain")

    async with starlette(handler) as client:
        answers = [await client.get("/x") for _ in range(2)]
    assert [len(answer.content) for answer in answers] == [2000, 2000]
    assert "too large" in answers[0].headers["cache-status"]


async def test_a_streamed_body_that_fits_is_stored(site: Site, kitchen: Kitchen) -> None:
    """Parts are put together, with the right length."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            kitchen.make()
            yield b"ab"
            yield b"cd"

        return StreamingResponse(parts(), media_type="text/plain")

    async with starlette(handler) as client:
        answers = [await client.get("/x") for _ in range(2)]
    assert [(answer.text, answer.headers["content-length"]) for answer in answers] == [("abcd", "4")] * 2
    assert kitchen.made == 1


# -- lifetimes --------------------------------------------------------------------------------------------------------


async def test_the_response_may_ask_for_less_but_not_for_more(site: Site, kitchen: Kitchen) -> None:
    """A handler's own max-age shortens the lifetime; s-maxage goes before it; its words are kept."""
    said = {
        "/short": "max-age=10",
        "/long": "max-age=1000",
        "/shared": "max-age=5, s-maxage=20",
        "/odd": "max-age=soon",
    }

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make(), headers={"Cache-Control": said[request.url.path]})

    async with starlette(handler, "/{rest:path}") as client:
        for path, control in said.items():
            assert (await client.get(path)).headers["cache-control"] == control
        ends = {"/short": 10, "/shared": 20, "/long": 60, "/odd": 60}
        passed = 0
        for path, end in sorted(ends.items(), key=lambda item: item[1]):
            site.clock.advance(max(0, end - 1 - passed))
            passed = max(passed, end - 1)
            assert (await client.get(path)).headers["x-cache"] == "HIT"
        site.clock.advance(2)
        assert (await client.get("/long")).headers["x-cache"] == "MISS"


async def test_the_lifetime_is_told_in_the_words_of_rfc_5861(site: Site) -> None:
    """stale-while-revalidate and stale-if-error of the options are in the Cache-Control."""

    @endpoint(site.cache, ttl="5m", stale_while_revalidate="1m", stale_if_error="1h")
    async def handler(request: Request) -> Response:
        return PlainTextResponse("x")

    async with starlette(handler) as client:
        answer = await client.get("/x")
    assert answer.headers["cache-control"] == "max-age=300, stale-while-revalidate=60, stale-if-error=3600"


async def test_what_never_expires_says_a_year(site: Site) -> None:
    """``ttl=None`` is the longest lifetime that clients understand."""

    @endpoint(site.cache, ttl=None)
    async def handler(request: Request) -> Response:
        return PlainTextResponse("x")

    async with starlette(handler) as client:
        await client.get("/x")
        answer = await client.get("/x")
    assert answer.headers["cache-control"] == "max-age=31536000"
    assert answer.headers["cache-status"] == "genesis-cache; hit"


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
async def test_an_old_answer_is_served_while_a_new_one_is_made(
    site: Site, kitchen: Kitchen, framework: str, settled: Any
) -> None:
    """STALE at once, with its true age, and HIT with the new one soon after; dependencies are fresh for that run."""
    open_sessions = 0

    async def session() -> AsyncIterator[Callable[[], str]]:
        nonlocal open_sessions
        is_open = True
        open_sessions += 1

        def query() -> str:
            assert is_open, "the session was closed before the run ended"
            return kitchen.make()

        yield query
        is_open = False
        open_sessions -= 1

    def build(app: FastAPI) -> None:
        @app.get("/x", response_class=PlainTextResponse)
        @endpoint(site.cache, ttl=60, stale_while_revalidate=60)
        async def handler(query: Annotated[Callable[[], str], Depends(session)]) -> str:
            await asyncio.sleep(0.01)
            return query()

    @endpoint(site.cache, ttl=60, stale_while_revalidate=60)
    async def plain(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(plain) if framework == "starlette" else fastapi(build) as client:
        await client.get("/x")
        site.clock.advance(70)
        stale = await client.get("/x")
        assert (stale.text, stale.headers["x-cache"], stale.headers["age"]) == ("1", "STALE", "70")
        assert stale.headers["cache-status"] == "genesis-cache; hit; ttl=-10"
        await settled(lambda: kitchen.made == 2 and not open_sessions)
        fresh = await client.get("/x")
        assert (fresh.text, fresh.headers["x-cache"]) == ("2", "HIT")


async def test_an_old_answer_covers_a_failure_but_not_a_404(site: Site, kitchen: Kitchen) -> None:
    """stale_if_error helps against 5xx and crashes (RFC 5861); what is gone is gone."""
    status: int | None = 200

    @endpoint(site.cache, ttl=60, stale_if_error=600, retry_after=0)
    async def handler(request: Request) -> Response:
        if status is None:
            raise RuntimeError("crash")
        return PlainTextResponse(kitchen.make(), status)

    async with starlette(handler) as client:
        await client.get("/x")
        site.clock.advance(61)
        for status in (500, 502, 503, 504, None):  # noqa: B007  # the handler reads it
            answer = await client.get("/x")
            assert (answer.status_code, answer.text, answer.headers["x-cache"]) == (200, "1", "STALE")
        status = 404
        assert (await client.get("/x")).status_code == 404
        status = 503
        assert (await client.get("/x")).status_code == 503


async def test_a_failure_without_an_old_answer_is_the_handlers_own(site: Site, kitchen: Kitchen) -> None:
    """A 503 is told as it is, to all who waited for it, and not kept."""

    @endpoint(site.cache, ttl=60, stale_if_error=600)
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.01)
        return PlainTextResponse(kitchen.make("busy "), 503, {"Retry-After": "7"})

    async with starlette(handler) as client:
        answers = await asyncio.gather(*(client.get("/x") for _ in range(5)))
        assert {(answer.status_code, answer.text, answer.headers["retry-after"]) for answer in answers} == {
            (503, "busy 1", "7")
        }
        assert (await client.get("/x")).text == "busy 2"


async def test_a_run_that_takes_too_long_is_504(site: Site) -> None:
    """`hard_timeout` bounds what a client waits."""

    @endpoint(site.cache, ttl=60, hard_timeout=0.02)
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.1)
        return PlainTextResponse("x")

    async with starlette(handler) as client:
        assert (await client.get("/x")).status_code == 504
        await asyncio.sleep(0.15)
        assert (await client.get("/x")).headers["x-cache"] == "HIT"


# -- what clients ask for ---------------------------------------------------------------------------------------------


async def test_no_store_goes_past_the_cache(site: Site, kitchen: Kitchen) -> None:
    """It is neither answered from the cache nor kept."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        assert (await client.get("/x", headers={"Cache-Control": "no-store"})).headers["x-cache"] == "BYPASS"
        assert (await client.get("/x")).text == "2"
        assert (await client.get("/x", headers={"Cache-Control": "no-store"})).text == "3"
        assert (await client.get("/x")).text == "2"


@pytest.mark.parametrize(
    "header", [{"Cache-Control": "no-cache"}, {"Pragma": "no-cache"}, {"Cache-Control": "max-age=0"}]
)
async def test_no_cache_makes_a_new_answer_for_all(site: Site, kitchen: Kitchen, header: dict[str, str]) -> None:
    """A reload makes the answer anew and stores it; but a second one within a second is content with that."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        await client.get("/x")
        site.clock.advance(5)
        reloads = await asyncio.gather(*(client.get("/x", headers=header) for _ in range(10)))
        assert {answer.text for answer in reloads} == {"2"}
        assert "fwd=request" in reloads[0].headers["cache-status"]
        assert (await client.get("/x", headers=header)).text == "2"
        assert (await client.get("/x")).text == "2"
    assert kitchen.made == 2


async def test_a_client_may_say_how_old_an_answer_it_takes(site: Site, kitchen: Kitchen) -> None:
    """max-age in a request is honoured against the answer's age."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        await client.get("/x")
        site.clock.advance(20)
        assert (await client.get("/x", headers={"Cache-Control": "max-age=30"})).text == "1"
        assert (await client.get("/x", headers={"Cache-Control": "max-age=10"})).text == "2"


async def test_only_if_cached_never_calls_the_handler(site: Site, kitchen: Kitchen) -> None:
    """504 where nothing is stored, the stored answer where something is."""

    @endpoint(site.cache, ttl=60)
    async def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        asked = {"Cache-Control": "only-if-cached"}
        answer = await client.get("/x", headers=asked)
        assert (answer.status_code, kitchen.made) == (504, 0)
        await client.get("/x")
        assert (await client.get("/x", headers=asked)).headers["x-cache"] == "HIT"


# -- where it stands --------------------------------------------------------------------------------------------------


async def test_routers_mounts_and_classes_work(site: Site, kitchen: Kitchen) -> None:
    """Included with prefixes, mounted under paths, or as a method: each path has its own answer."""
    router = APIRouter(prefix="/r")

    @router.get("/{n}")
    @endpoint(site.cache, ttl=60)
    async def numbered(n: int, request: Request) -> str:
        return f"{request.url.path} {kitchen.make()}"

    app = FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    whole = Starlette(routes=[Mount("/one", app), Mount("/two", app)])
    async with client_of(whole) as client:
        paths = [f"/{mount}/{prefix}/r/1" for mount in ("one", "two") for prefix in ("a", "b")]
        first = [(await client.get(path)).json() for path in paths]
        second = [(await client.get(path)).json() for path in paths]
    assert first == second
    assert [text.split()[0] for text in first] == paths
    assert kitchen.made == 4


async def test_background_tasks_of_the_handler_run_with_its_run(site: Site, kitchen: Kitchen) -> None:
    """What a handler asks to be done afterwards is done once for each time it runs."""
    done = []

    @endpoint(site.cache, ttl=60)
    async def handler(tasks: BackgroundTasks) -> str:
        tasks.add_task(done.append, 1)
        return kitchen.make()

    async with fastapi(lambda app: app.get("/x")(handler)) as client:
        for _ in range(3):
            await client.get("/x")
    assert done == [1]


async def test_overridden_dependencies_are_overridden_in_the_run_too(site: Site) -> None:
    """Tests of an app replace dependencies as ever."""

    def setting() -> str:
        return "real"

    app = FastAPI()

    @app.get("/x")
    @endpoint(site.cache, ttl=60)
    async def handler(setting: Annotated[str, Depends(setting)]) -> str:
        return setting

    app.dependency_overrides[setting] = lambda: "test"
    async with client_of(app) as client:
        assert (await client.get("/x")).json() == "test"


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"vary": "Accept"}, TypeError, "must be a list"),
        ({"vary": ["*"]}, ValueError, "no header"),
        ({"vary": ["a b"]}, ValueError, "no header"),
        ({"vary": ["Cookie"]}, ValueError, "identity="),
        ({"vary": ["Authorization"]}, ValueError, "identity="),
        ({"identity": "nobody"}, ValueError, "names no parameter"),
        ({"identity": 7}, TypeError, "identity="),
        ({"identity": user_of, "shared": True}, ValueError, "contradict"),
        ({"owner": "user:7"}, TypeError, "identity="),
        ({"ttl": "soon"}, ValueError, "soon"),
        ({"ttl": 0}, ValueError, "above 0"),
        ({"tags": "t"}, TypeError, "list"),
        ({"tags": ["t:{nobody}"]}, ValueError, "nobody"),
        ({"tll": 5}, TypeError, "ttl"),
    ],
)
async def test_what_cannot_be_meant_fails_when_the_handler_is_decorated(
    site: Site, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    """Mistakes are found when the program starts, not when the first user comes."""
    with pytest.raises(error, match=told):

        @endpoint(site.cache, **{"ttl": 60, **options})
        async def handler(number: int) -> str:
            return str(number)


async def test_streams_and_classes_are_refused_when_decorated(site: Site) -> None:
    """A generator, a class or a value is no handler that can be cached."""

    async def stream() -> AsyncIterator[str]:
        yield "x"

    for wrong in (stream, Kitchen, 7):
        with pytest.raises(TypeError, match=r"endpoint\(\)|generator"):
            endpoint(site.cache, ttl=60)(wrong)  # type: ignore[type-var]  # that is the point


async def test_a_near_hit_does_not_touch_the_handler_or_a_thread(site: Site, kitchen: Kitchen) -> None:
    """1,000 hits count as hits in memory and cost no further run."""

    @endpoint(site.cache, ttl=60)
    def handler(request: Request) -> Response:
        return PlainTextResponse(kitchen.make())

    async with starlette(handler) as client:
        for _ in range(1000):
            await client.get("/x")
    figures = site.cache.analytics()["namespaces"]["http"]
    assert (figures["hits"], figures["loads"], kitchen.made) == (999, 1, 1)
