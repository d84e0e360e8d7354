"""The HTTP face of a cache over real servers: health, control and traces while a server lives, freezes or is gone."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.web.conftest import BEARER, TOKEN, client_of

from genesis_cache import Cache, CacheSettings
from genesis_cache.export.otel import instrument
from genesis_cache.testing.servers import RedisServer
from genesis_cache.web import app
from genesis_cache.web.public import without_addresses


def over(url: str, **overrides: object) -> Cache:
    """A cache over memory and a server, under a name of its own."""
    settings = CacheSettings().with_urls("memory://", url)
    return Cache(settings.with_overrides(cache_name=f"web-{uuid.uuid4().hex}", **overrides))


@pytest_asyncio.fixture
async def redis_cache(redis_url: str) -> AsyncIterator[Cache]:
    """A cache over memory and the shared Redis."""
    async with over(redis_url) as cache:
        yield cache


async def test_the_copies_on_redis_can_be_cleared_alone(redis_cache: Cache) -> None:
    """Memory keeps serving; what is not meant stays on the server."""
    await redis_cache.set("k", 1)
    await redis_cache.namespace("shop").set("k", 2)
    async with client_of(app(redis_cache, TOKEN)) as client:
        body = {"namespace": "shop", "tier": "redis"}
        assert (await client.post("/cache/clear", json=body, headers=BEARER)).json()["status"] == "applied"
        there = (await client.get("/monitoring/cache/keys/k?namespace=shop")).json()["tiers"]
        assert [(row["tier"], row["present"]) for row in there] == [("memory", True), ("redis", False)]
        other = (await client.get("/monitoring/cache/keys/k")).json()["tiers"]
        assert [row["present"] for row in other] == [True, True]


async def test_a_frozen_redis_degrades_health_and_says_why(own_redis: RedisServer) -> None:
    """The cache still serves, /healthz says what it has not heard, and the metrics tell the lag."""
    cache = over(own_redis.url, cache_max_staleness=0.2, redis_socket_timeout=0.3)
    async with cache, client_of(app(cache, TOKEN)) as client:
        await cache.set("k", 1)
        assert (await client.get("/healthz")).json()["status"] == "ok"
        own_redis.freeze()
        async with asyncio.timeout(20):
            while (await client.get("/healthz")).json()["status"] == "ok":
                await cache.get("nobody")
                await asyncio.sleep(0.02)
        answer = await client.get("/healthz")
        assert answer.status_code == 200
        assert len(answer.json()["tiers"]["l2"]["reason"]) > 10
        assert await cache.get("k") == 1
        assert cache.measures().invalidation_lag_s > 0.1
        owed = await client.post("/cache/invalidate", json={"key": "k"}, headers=BEARER)
        assert owed.json() == {"status": "degraded", "degraded": ["redis"], "matched": 1}
        own_redis.thaw()
        async with asyncio.timeout(20):
            while (await client.get("/healthz")).json()["status"] != "ok":  # noqa: ASYNC110  # nothing tells when it is
                await asyncio.sleep(0.02)


async def test_calls_to_a_server_have_spans_and_hits_in_memory_have_none(redis_cache: Cache) -> None:
    """A trace shows each get and commit inside the request that waited for it; undone, it costs nothing again."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    end = instrument(redis_cache, tracer_provider=provider)
    with tracer.start_as_current_span("request") as request:
        await redis_cache.set("secret-key", 1)
        await redis_cache.get("nobody")
        await redis_cache.get_many(["a", "b"])
    seen = [span for span in exporter.get_finished_spans() if span.name != "request"]
    assert {span.name for span in seen} == {"cache.commit", "cache.get", "cache.get_many"}
    for span in seen:
        attributes = dict(span.attributes or {})
        assert attributes["db.system.name"] == "redis"
        assert attributes["cache.layer"] == "l2"
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert "secret" not in str(attributes)
    for _ in range(100):
        await redis_cache.get("secret-key")
    assert len(exporter.get_finished_spans()) == len(seen) + 1
    end()
    await redis_cache.set("other", 1)
    assert len(exporter.get_finished_spans()) == len(seen) + 1
    provider.shutdown()


async def test_an_answer_made_by_one_process_is_found_by_another(redis_url: str) -> None:
    """Two services over one Redis share answers, and an invalidation in one reaches the other."""
    from fastapi import FastAPI  # noqa: PLC0415  # only here

    from genesis_cache.web import endpoint  # noqa: PLC0415  # only here

    name, made = f"web-{uuid.uuid4().hex}", []
    settings = CacheSettings().with_urls("memory://", redis_url).with_overrides(cache_name=name)

    def service(cache: Cache) -> FastAPI:
        whole = FastAPI()

        @whole.get("/x")
        @endpoint(cache, ttl=60, tags=["x"])
        async def handler() -> int:
            made.append(1)
            return len(made)

        return whole

    one, two = Cache(settings), Cache(settings)
    async with one, two, client_of(service(one)) as first, client_of(service(two)) as second:
        assert (await first.get("/x")).json() == 1
        found = await second.get("/x")
        assert (found.json(), found.headers["x-cache"]) == (1, "HIT")
        await one.delete_by_tag("x")
        async with asyncio.timeout(10):
            while (await second.get("/x")).json() == 1:  # noqa: ASYNC110  # it hears of it by itself
                await asyncio.sleep(0.01)
    assert len(made) == 2


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "postgresql://user:hidden-word@127.0.0.1:1/there"])
async def test_what_anybody_may_read_does_not_say_where_a_server_is(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every open route says why a tier is out of use, none its address or password; the log has the address."""
    async with over(url) as cache, client_of(app(cache, TOKEN)) as client:
        await cache.set("k", 1)
        told = {}
        for route in ("/healthz", "/monitoring/cache", "/monitoring/cache/levels", "/monitoring/cache/efficiency"):
            told[route] = (await client.get(route)).text
        for route in ("/metrics", "/monitoring/cache/keys/k"):
            told[route] = (await client.get(route)).text
        document = await _first_event(client)
    reasons = [text for text in (*list(told.values())[:4], document) if "refuses connections" in text]
    assert len(reasons) == 5
    assert not [route for route, text in told.items() if "127.0.0.1" in text or "hidden-word" in text]
    assert "127.0.0.1" not in document
    assert "127.0.0.1:1" in caplog.text


async def _first_event(client: httpx2.AsyncClient) -> str:
    """The first figures of the stream."""
    async with client.stream("GET", "/monitoring/cache/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                return line
    raise AssertionError("the stream ended without figures")


@pytest.mark.parametrize(
    ("sentence", "public"),
    [
        ("Redis at 10.0.0.7:6379 refuses connections: is it?", "Redis refuses connections: is it?"),
        ("No node of the Redis cluster at a:1,b:2 answers: is it?", "No node of the Redis cluster answers: is it?"),
        ("Redis at [::1]:6379 is busy", "Redis is busy"),
        ("PostgreSQL at postgresql://u:***@db.inner/x has no room on its disk", "PostgreSQL has no room on its disk"),
        (
            "cannot be reached: Connect call failed ('10.0.0.7', 5432)",
            "cannot be reached: Connect call failed (address)",
        ),
        ("Connect call failed ('fe80::1', 5432, 0, 0)", "Connect call failed (address)"),
        ("the store is 12:30 old, version 1.2.3, at 0.5 s", "the store is 12:30 old, version 1.2.3, at 0.5 s"),
    ],
)
def test_a_sentence_without_addresses(sentence: str, public: str) -> None:
    """Addresses of every kind go, what only looks like one stays."""
    assert without_addresses(sentence) == public
