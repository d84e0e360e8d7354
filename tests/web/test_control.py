"""Control over HTTP: who may, how it is said, what is done, and what the audit log has of it."""

import asyncio
import logging
import re

import pytest
from tests.web.conftest import BEARER, TOKEN, Open, Site, client_of

from genesis_cache import Cache, CacheSettings, SettingsError
from genesis_cache.web import app, router
from genesis_cache.web.access import RateLimit, Token

JSON = {"Content-Type": "application/json"}
VERBS = ["/cache/clear", "/cache/invalidate"]


@pytest.mark.parametrize("path", VERBS)
async def test_without_a_configured_token_nothing_can_be_controlled(path: str) -> None:
    """403, whatever is sent, and the sentence says how to configure a token."""
    cache = Cache(CacheSettings(cache_tiers=("memory",)))
    async with cache, client_of(app(cache)) as client:
        for headers in ({}, BEARER, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            answer = await client.post(path, json={"all": True}, headers=headers)
            assert answer.status_code == 403
            assert "CACHE_CONTROL_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize("path", VERBS)
@pytest.mark.parametrize(
    "sent",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer ñ",
    ],
)
async def test_a_missing_or_wrong_token_is_401(site: Site, path: str, sent: str | None) -> None:
    """Nothing is done for who has not the token, and the answer says which header to send."""
    await site.cache.set("k", 1)
    headers = {} if sent is None else {"Authorization": sent.encode()}
    answer = await site.client.post(path, json={"all": True}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json()["detail"]
    assert TOKEN not in answer.text
    assert await site.cache.get("k") == 1


async def test_the_token_is_that_of_the_settings_or_the_one_that_was_passed() -> None:
    """`token=` wins over CACHE_CONTROL_TOKEN; one that no header can carry is refused when the routes are made."""
    cache = Cache(CacheSettings(cache_tiers=("memory",), cache_control_token="from-settings"))  # noqa: S106  # of a test
    for whole, right, wrong in ((app(cache), "from-settings", "own"), (app(cache, "own"), "own", "from-settings")):
        async with client_of(whole) as client:
            for token, status in ((right, 200), (wrong, 401)):
                headers = {"Authorization": f"bearer {token}"}
                assert (await client.post("/cache/clear", json={"all": True}, headers=headers)).status_code == status
    for unfit in ("two words", "ñ", ""):
        with pytest.raises(SettingsError, match="token"):
            router(cache, unfit)
    await cache.close()


@pytest.mark.parametrize("path", VERBS)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None, "json"]
)
async def test_only_json_is_taken(site: Site, path: str, kind: str | None) -> None:
    """415 for what a form of another site could send."""
    headers = BEARER | ({} if kind is None else {"Content-Type": kind})
    answer = await site.client.post(path, content=b'{"all": true}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_is_json_however_it_is_written(site: Site, kind: str) -> None:
    """Case and parameters of the media type do not matter."""
    answer = await site.client.post("/cache/clear", content=b'{"all": true}', headers=BEARER | {"Content-Type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "JSON object, got a list"),
        (b"null", "JSON object, got null"),
        (b"{}", "one of the two"),
        (b'{"all": false}', "one of the two"),
        (b'{"all": true, "namespace": "a"}', "one of the two"),
        (b'{"all": 1}', "all must be true"),
        (b'{"all": "yes"}', "all must be true"),
        (b'{"namespace": ""}', "1 to 256 bytes"),
        (b'{"namespace": 7}', "must be a string"),
        (b'{"namespace": "a//b"}', "before, between and after"),
        (b'{"namespace": "/"}', "before, between and after"),
        (b'{"all": true, "dry_run": "no"}', "dry_run must be true or false"),
        (b'{"all": true, "tier": 7}', "name of a tier"),
        (b'{"all": true, "tier": "redis"}', "this cache has memory (l1)"),
        (b'{"all": true, "everywhere": true}', "no field 'everywhere'"),
    ],
)
async def test_a_bad_clear_is_refused_in_a_plain_sentence(site: Site, body: bytes, told: str) -> None:
    """422 with one sentence under ``detail``, and nothing is cleared."""
    await site.cache.set("k", 1)
    answer = await site.client.post("/cache/clear", content=body, headers=BEARER | JSON)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert told in answer.json()["detail"]
    assert await site.cache.get("k") == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{}", "exactly one of key, keys, tag, tags, pattern, user_id; the body says nothing"),
        (b'{"key": "a", "tag": "b"}', "the body says key and tag"),
        (b'{"key": null}', "must be a string"),
        (b'{"key": ""}', "1 to 1024 bytes"),
        (b'{"key": "\\ud800"}', "valid Unicode"),
        (b'{"keys": "a"}', "keys must be a list"),
        (b'{"keys": []}', "at least one"),
        (b'{"keys": ["a", 7]}', "must be a string"),
        (b'{"tags": []}', "at least one"),
        (b'{"tag": ["a"]}', "must be a string"),
        (b'{"pattern": "***"}', "2 stars"),
        (b'{"pattern": ""}', "1 to 128 characters"),
        (b'{"user_id": ""}', "not empty"),
        (b'{"user_id": true}', "user_id must be"),
        (b'{"user_id": 1.5}', "user_id must be"),
        (b'{"user_id": null}', "user_id must be"),
        (b'{"key": "a", "namespace": ""}', "1 to 256 bytes"),
        (b'{"key": "a", "nmespace": "b"}', "no field 'nmespace'"),
    ],
)
async def test_a_bad_invalidation_is_refused_in_a_plain_sentence(site: Site, body: bytes, told: str) -> None:
    """422 with one sentence under ``detail``, and nothing is forgotten."""
    await site.cache.set("a", 1)
    answer = await site.client.post("/cache/invalidate", content=body, headers=BEARER | JSON)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert told in answer.json()["detail"]
    assert await site.cache.get("a") == 1


async def test_a_body_has_a_size_limit(site: Site) -> None:
    """A body of more than a mebibyte, or with too many keys, is refused before anything is done."""
    large = await site.client.post("/cache/invalidate", content=b" " * (2**20 + 1), headers=BEARER | JSON)
    assert large.status_code == 413
    many = await site.post("/cache/invalidate", {"keys": ["k"] * 10_001})
    assert many.status_code == 422
    assert "at most 10000" in many.json()["detail"]


async def fill(cache: Cache) -> None:
    """Entries of two products, two users, two namespaces."""
    for n in range(4):
        await cache.set(f"product:{n}", n, tags=["product", f"product:{n}"])
    await cache.namespace("shop").set("product:0", "shop", tags=["product"])
    await cache.namespace("shop/eu").set("product:0", "eu")
    await cache.owned_by("user:7").set("cart", "seven")
    await cache.namespace("shop").owned_by("user:7").set("cart", "seven's in the shop")
    await cache.owned_by("user:8").set("cart", "eight")


INVALIDATIONS = [
    ({"key": "product:0"}, 1, {"product:0"}),
    ({"key": "nobody"}, 0, set()),
    ({"keys": ["product:0", "product:1", "product:1", "nobody"]}, 2, {"product:0", "product:1"}),
    ({"tag": "product:2"}, 1, {"product:2"}),
    ({"tag": "product"}, 5, {"product:0", "product:1", "product:2", "product:3", "shop"}),
    ({"tags": ["product:2", "product:3"]}, 2, {"product:2", "product:3"}),
    ({"pattern": "product:?"}, 6, {"product:0", "product:1", "product:2", "product:3", "shop", "eu"}),
    ({"pattern": "cart"}, 3, {"seven", "seven's in the shop", "eight"}),
    ({"user_id": 7}, 2, {"seven", "seven's in the shop"}),
    ({"user_id": "7"}, 2, {"seven", "seven's in the shop"}),
    ({"user_id": "8"}, 1, {"eight"}),
    ({"key": "product:0", "namespace": "shop"}, 1, {"shop"}),
    ({"tag": "product", "namespace": "shop"}, 1, {"shop"}),
    ({"pattern": "product:*", "namespace": "shop"}, 2, {"shop", "eu"}),
    ({"user_id": 7, "namespace": "shop"}, 1, {"seven's in the shop"}),
]


async def held(cache: Cache) -> set[str]:
    """Which of the entries of `fill` are there, by a name for each."""
    shop = cache.namespace("shop")
    places = {f"product:{n}": (cache, f"product:{n}") for n in range(4)}
    places |= {"shop": (shop, "product:0"), "eu": (cache.namespace("shop/eu"), "product:0")}
    places |= {"seven": (cache.owned_by("user:7"), "cart"), "eight": (cache.owned_by("user:8"), "cart")}
    places |= {"seven's in the shop": (shop.owned_by("user:7"), "cart")}
    return {name for name, (view, key) in places.items() if await view.get(key) is not None}


@pytest.mark.parametrize("tiers", [("memory",), ("memory", "disk")])
@pytest.mark.parametrize(("body", "matched", "gone"), INVALIDATIONS)
async def test_an_invalidation_forgets_what_it_names_and_tells_how_many(
    open_site: Open, tiers: tuple[str, ...], body: dict[str, object], matched: int, gone: set[str]
) -> None:
    """What is counted in a dry run is what goes afterwards, and nothing else goes."""
    site = await open_site(*tiers)
    await fill(site.cache)
    before = await held(site.cache)
    dry = await site.post("/cache/invalidate", {**body, "dry_run": True})
    assert dry.json() == {"status": "dry_run", "degraded": [], "matched": matched}
    assert await held(site.cache) == before
    done = await site.post("/cache/invalidate", body)
    assert (done.status_code, done.json()) == (200, {"status": "applied", "degraded": [], "matched": matched})
    assert before - await held(site.cache) == gone


@pytest.mark.parametrize(
    ("body", "matched", "left"),
    [
        ({"all": True}, 9, 0),
        ({"namespace": "shop"}, 3, 6),
        ({"namespace": "shop/eu"}, 1, 8),
        ({"namespace": "x"}, 0, 9),
    ],
)
async def test_a_clear_forgets_a_namespace_or_everything(
    open_site: Open, body: dict[str, object], matched: int, left: int
) -> None:
    """`all` has to be said; a namespace takes those inside it along."""
    site = await open_site("memory", "disk")
    await fill(site.cache)
    dry = await site.post("/cache/clear", {**body, "dry_run": True})
    assert dry.json() == {"status": "dry_run", "degraded": [], "matched": matched}
    assert len(await held(site.cache)) == 9
    assert (await site.post("/cache/clear", body)).json() == {"status": "applied", "degraded": [], "matched": matched}
    assert len(await held(site.cache)) == left


@pytest.mark.parametrize("name", ["memory", "l1"])
async def test_one_tier_can_be_cleared_and_the_values_stay_in_the_others(open_site: Open, name: str) -> None:
    """Clearing memory frees it; the next read finds the value on disk."""
    site = await open_site("memory", "disk")
    await fill(site.cache)
    answer = await site.post("/cache/clear", {"all": True, "tier": name})
    assert answer.json() == {"status": "applied", "degraded": [], "matched": 9}
    assert site.cache.analytics()["layer_statistics"]["l1"]["entries"] == 0
    assert len(await held(site.cache)) == 9


@pytest.mark.parametrize(("far", "name"), [("disk", "disk"), ("disk", "l2"), ("database", "database")])
async def test_a_far_tier_can_be_cleared_and_memory_keeps_its_copies(open_site: Open, far: str, name: str) -> None:
    """Clearing one namespace of the disk leaves the others there, and all of it in memory."""
    site = await open_site("memory", far)
    await fill(site.cache)
    answer = await site.post("/cache/clear", {"namespace": "shop", "tier": name})
    assert answer.json() == {"status": "applied", "degraded": [], "matched": None}
    assert site.cache.analytics()["layer_statistics"]["l2"]["entries"] == 6
    assert site.cache.analytics()["layer_statistics"]["l1"]["entries"] == 9
    assert (await site.post("/cache/clear", {"all": True, "tier": name})).json()["status"] == "applied"
    assert site.cache.analytics()["layer_statistics"]["l2"]["entries"] == 0
    assert len(await held(site.cache)) == 9


async def test_where_nothing_can_be_counted_matched_is_null(open_site: Open) -> None:
    """A cache without memory says null, not 0."""
    site = await open_site("disk")
    await fill(site.cache)
    assert (await site.post("/cache/invalidate", {"tag": "product"})).json()["matched"] is None
    assert (await site.post("/cache/clear", {"all": True})).json() == {
        "status": "applied",
        "degraded": [],
        "matched": None,
    }


async def test_what_is_dead_already_is_not_counted(site: Site) -> None:
    """Expired and invalidated entries that still take room are not told as matched."""
    await site.cache.set("a", 1, ttl=5)
    await site.cache.set("b", 1, tags=["t"])
    await site.cache.set("c", 1)
    site.clock.advance(6)
    await site.cache.delete_by_tag("t")
    assert (await site.post("/cache/clear", {"all": True, "dry_run": True})).json()["matched"] == 1


async def test_counting_a_large_memory_does_not_hold_up_the_loop(site: Site) -> None:
    """While 50,000 entries are counted, others get their turns."""
    await site.cache.set_many({f"k{n}": n for n in range(50_000)})
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert await site.cache.count(pattern="k*") == 50_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns > 10


async def test_a_change_that_a_tier_is_owed_is_degraded(open_site: Open) -> None:
    """The answer names the tiers that have still to be told."""
    site = await open_site("memory", "disk")
    await site.cache.set("k", 1)
    lane = site.cache._engine.core.lanes[0]
    await lane.tier.close()
    answer = await site.post("/cache/invalidate", {"key": "k"})
    assert answer.json() == {"status": "degraded", "degraded": ["disk"], "matched": 1}
    assert await site.cache.get("k") is None
    await lane.tier.open()
    async with asyncio.timeout(5):
        while lane.owed:  # noqa: ASYNC110  # nothing tells when it is paid
            await asyncio.sleep(0.01)


async def test_each_call_is_one_line_of_the_audit_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What was done, by which address, with what outcome; refusals too."""
    caplog.set_level(logging.INFO, "genesis_cache.audit")
    await site.cache.set("k", 1)
    await site.post("/cache/invalidate", {"key": "k"})
    await site.post("/cache/clear", {"namespace": "shop", "dry_run": True})
    await site.post("/cache/clear", {})
    await site.client.post("/cache/clear", json={"all": True}, headers={"Authorization": "Bearer wrong-canary"})
    lines = [record.getMessage() for record in caplog.records if record.name == "genesis_cache.audit"]
    assert lines == [
        'invalidate key="k" applied matched=1 client=127.0.0.1',
        'clear namespace="shop" dry_run matched=0 client=127.0.0.1',
        "clear - refused: 422 client=127.0.0.1",
        "clear - refused: 401 client=127.0.0.1",
    ]


@pytest.mark.parametrize("key", ["a\nINFO forged", "a\r\nb", "\x1b[31mred", "a\u2028b", "\0", '" applied', "x" * 1000])
async def test_no_key_can_forge_a_line_of_the_audit_log(site: Site, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a key holds, one call is one printable line, and its end cannot be imitated."""
    caplog.set_level(logging.INFO, "genesis_cache.audit")
    assert (await site.post("/cache/invalidate", {"keys": [key, "b", "c", "d", "e", "f", "g"]})).status_code == 200
    (line,) = [record.getMessage() for record in caplog.records if record.name == "genesis_cache.audit"]
    assert line.isprintable()
    assert len(line) < 400
    assert re.fullmatch(r'invalidate keys="(?:[^"\\]|\\.)*",.* and 2 more applied matched=0 client=127\.0\.0\.1', line)


async def test_too_many_clears_are_429(site: Site) -> None:
    """A flood of clears is refused with the time to wait; invalidations go on."""
    answers = await asyncio.gather(*(site.post("/cache/clear", {"all": True}) for _ in range(40)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 5 <= len(refused) <= 10
    assert int(refused[0].headers["retry-after"]) >= 1
    assert "too many" in refused[0].json()["detail"]
    assert (await site.post("/cache/invalidate", {"key": "k"})).status_code == 200


async def test_guessing_tokens_is_limited_and_harms_nobody_who_has_it(site: Site) -> None:
    """After a hundred wrong tokens the next are 429, while the right one still works."""
    wrong = {"Authorization": "Bearer guess"}
    statuses = [(await site.client.post("/cache/clear", json={}, headers=wrong)).status_code for _ in range(130)]
    assert statuses[:100] == [401] * 100
    assert 429 in statuses
    assert (await site.post("/cache/clear", {"all": True})).status_code == 200


def test_a_bucket_fills_with_time() -> None:
    """Three at once, then one each half second."""
    now = 0.0
    limit = RateLimit(3, 2.0, lambda: now)
    assert [limit.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    now = 0.5
    assert [limit.take(), limit.take()] == [0.0, 0.5]
    now = 100.0
    assert [limit.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_the_token_is_never_shown() -> None:
    """Not even by repr."""
    assert TOKEN not in repr(Token(TOKEN))


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", VERBS)
async def test_nothing_but_a_post_changes_anything(site: Site, method: str, path: str) -> None:
    """No link, image or preflight can clear a cache, and no other site is let in."""
    await site.cache.set("k", 1)
    answer = await site.client.request(method, path, headers=BEARER | {"Origin": "https://evil.example"})
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    assert await site.cache.get("k") == 1
