"""Monitoring over HTTP: the figures, the keys, the health and the page, asked of the real app."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from tests.web.conftest import BEARER, Open, Site, client_of

from genesis_cache import Cache, CacheSettings
from genesis_cache.web import app
from genesis_cache.web.efficiency import alerts, score
from genesis_cache.web.pages import FOLDER


async def test_the_figures_are_those_of_analytics(site: Site) -> None:
    """GET /monitoring/cache is `analytics()` as JSON."""
    await site.cache.set("user:7", 1)
    await site.cache.get("user:7")
    answer = await site.get("/monitoring/cache")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(site.cache.analytics()))
    assert answer.json()["global_statistics"]["hits"] == 1


async def test_levels_are_rows_in_look_up_order(open_site: Open) -> None:
    """GET /monitoring/cache/levels has a row a level, each with its layer, its tier and its figures."""
    site = await open_site("memory", "disk", "database")
    await site.cache.set("k", "v")
    levels = (await site.get("/monitoring/cache/levels")).json()["levels"]
    assert [(row["layer"], row["tier"]) for row in levels] == [("l1", "memory"), ("l2", "disk"), ("l3", "database")]
    for row in levels:
        assert row["entries"] == 1
        assert row["up"] is True
        assert {"hit_ratio", "size_bytes", "capacity_bytes", "evictions", "p50_ms", "p99_ms"} <= set(row)


async def test_a_cache_that_does_well_scores_high(site: Site) -> None:
    """Efficiency is a score of 0 to 100 with advice and alerts."""
    await site.cache.set("k", 1)
    for _ in range(200):
        await site.cache.get("k")
    told = (await site.get("/monitoring/cache/efficiency")).json()
    assert told == {"score": 100, "recommendations": [], "alerts": []}


async def test_few_hits_are_an_alert_and_an_advice(site: Site) -> None:
    """A cache that is asked in vain says so, with its evidence."""
    for n in range(200):
        await site.cache.get(f"nobody:{n}")
    told = (await site.get("/monitoring/cache/efficiency")).json()
    assert told["score"] == 40
    assert [alert["name"] for alert in told["alerts"]] == ["low_hit_ratio"]
    assert "0% over 200 requests" in told["alerts"][0]["message"]
    assert set(told["recommendations"][0]) == {"title", "evidence", "action"}


async def test_a_memory_that_is_too_small_is_an_alert(open_site: Open) -> None:
    """A tier that pushes out what it was just given is saturated."""
    site = await open_site(l1_cache_size_mb=1)
    for n in range(1500):
        await site.cache.set(f"k{n}", "x" * 2000)
    told = (await site.get("/monitoring/cache/efficiency")).json()
    assert [alert["name"] for alert in told["alerts"]] == ["saturation"]
    assert told["score"] == 85


def test_a_tier_that_is_down_is_a_critical_alert() -> None:
    """Whoever looks at the alerts learns first which tier is out of use, and why."""
    row = {"hits": 0, "capacity_bytes": 10, "size_bytes": 0, "evictions": {}, "tier": "redis"}
    figures = {
        "global_statistics": {"requests": 0, "global_hit_ratio": 0.0},
        "layer_statistics": {"l1": {**row, "up": True}, "l2": {**row, "up": False, "reason": "it was unplugged"}},
    }
    assert alerts(figures) == [
        {"name": "tier_down", "severity": "critical", "message": "l2 (redis) is out of use: it was unplugged"}
    ]
    assert score(figures) == 88


async def test_a_key_is_explained_without_its_value(site: Site) -> None:
    """Anybody who may look learns where a key is, how old it is and what tags it has, not what it holds."""
    await site.cache.set("user:7", {"name": "Ada"}, ttl=60, tags=["user:7"])
    site.clock.advance(10)
    answer = await site.get("/monitoring/cache/keys/user:7")
    told = answer.json()
    assert answer.status_code == 200
    assert (told["verdict"], told["tiers"][0]["tags"]) == ("fresh", ["user:7"])
    assert told["tiers"][0]["ttl_left"] == pytest.approx(50)
    assert told["tiers"][0]["age"] == pytest.approx(10)
    assert "Ada" not in answer.text


async def test_a_key_that_no_tier_holds_is_404_with_the_same_body(site: Site) -> None:
    """A missing key is explained like one that is there."""
    answer = await site.get("/monitoring/cache/keys/nobody")
    assert answer.status_code == 404
    assert answer.json()["verdict"] == "absent"
    assert [row["present"] for row in answer.json()["tiers"]] == [False]


@pytest.mark.parametrize("key", ["a/b/c", "/", "ñandú", "a b", "100%", "?", "#", "x/../y", "a\nb\r\n", "\0"])
async def test_any_key_can_be_asked_for(site: Site, key: str) -> None:
    """Slashes, spaces, percent signs and other languages are part of keys like everything else."""
    await site.cache.set(key, 1)
    quoted = "".join(f"%{byte:02X}" for byte in key.encode())
    answer = await site.get(f"/monitoring/cache/keys/{quoted}")
    assert (answer.status_code, answer.json()["key"]) == (200, key)


async def test_the_value_needs_the_token(site: Site) -> None:
    """?value=true shows the value to who has the token, and 401 to everybody else."""
    await site.cache.set("user:7", {"name": "Ada", "raw": b"\0", "when": 1 + 2j})
    refused = await site.get("/monitoring/cache/keys/user:7?value=true")
    assert (refused.status_code, "Ada" in refused.text) == (401, False)
    assert refused.headers["www-authenticate"] == "Bearer"
    shown = await site.get("/monitoring/cache/keys/user:7?value=true", headers=BEARER)
    assert shown.json()["value"] == {"name": "Ada", "raw": "AA==", "when": "(1+2j)"}
    assert (await site.get("/monitoring/cache/keys/user:7", headers=BEARER)).json().get("value") is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({(1, 2): {None: b"\0"}, True: [{"a": 1}]}, {"(1, 2)": {"None": "AA=="}, "True": [{"a": 1}]}),
        ({"half \ud800": ["\udc00"]}, {"half \\ud800": ["\\udc00"]}),
        (2**80, 2**80),
    ],
)
async def test_a_value_that_json_has_no_word_for_is_shown(site: Site, value: object, shown: object) -> None:
    """Keys of a dict that are no text, and text that is no Unicode, are written as Python writes them."""
    await site.cache.set("odd", value, tiers=["memory"])
    answer = await site.get("/monitoring/cache/keys/odd?value=true", headers=BEARER)
    assert (answer.status_code, answer.json().get("value")) == (200, shown)


async def test_a_sensitive_value_is_hidden_even_from_who_has_the_token(site: Site) -> None:
    """What is sensitive is not shown on any page."""
    await site.cache.set("card", "4111-1111", sensitive=True)
    shown = await site.get("/monitoring/cache/keys/card?value=true", headers=BEARER)
    assert shown.json()["value"] == "<sensitive>"
    assert "4111" not in shown.text


async def test_looking_at_a_key_changes_no_figure(open_site: Open) -> None:
    """An operator who looks is no hit, no miss, and promotes nothing."""
    site = await open_site("memory", "disk")
    await site.cache.set("k", 1, tiers=["disk"])
    before = site.cache.analytics()["global_statistics"]["requests"]
    shown = await site.get("/monitoring/cache/keys/k?value=true", headers=BEARER)
    assert shown.json()["value"] == 1
    assert site.cache.analytics()["global_statistics"]["requests"] == before
    assert site.cache.peek("k") is None


@pytest.mark.parametrize("key", ["k" * 1025, "ñ" * 513, ""])
async def test_what_cannot_be_a_key_is_refused_in_a_sentence(site: Site, key: str) -> None:
    """A key that is too long or empty is 422, with the limit in the sentence."""
    answer = await site.get(f"/monitoring/cache/keys/{key}")
    assert answer.status_code == 422
    assert "1 to 1024 bytes" in answer.json()["detail"]


async def test_a_namespace_and_an_owner_can_be_looked_into(site: Site) -> None:
    """The same key in a namespace, or of one user, is another entry."""
    await site.cache.namespace("shop").set("k", 1)
    await site.cache.owned_by("user:7").set("mine", 2)
    assert (await site.get("/monitoring/cache/keys/k")).status_code == 404
    assert (await site.get("/monitoring/cache/keys/k?namespace=shop")).status_code == 200
    assert (await site.get("/monitoring/cache/keys/mine")).status_code == 404
    assert (await site.get("/monitoring/cache/keys/mine?owner=user:7")).status_code == 200


async def test_strangers_cannot_fill_memory_with_namespaces(site: Site) -> None:
    """A namespace that nobody uses is opened only for who has the token."""
    for n in range(50):
        assert (await site.get(f"/monitoring/cache/keys/k?namespace=n{n}")).status_code == 401
    assert "n7" not in site.cache.analytics()["namespaces"]
    assert (await site.get("/monitoring/cache/keys/k?namespace=n7", headers=BEARER)).status_code == 404


async def test_health_is_ok_while_all_is_well(open_site: Open) -> None:
    """GET /healthz says of each level whether it is up."""
    site = await open_site("memory", "disk")
    answer = await site.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "tiers": {
            "l1": {"tier": "memory", "up": True, "reason": None},
            "l2": {"tier": "disk", "up": True, "reason": None},
        },
    }


async def test_a_tier_that_cannot_work_degrades_and_the_cache_still_serves(tmp_path: Path) -> None:
    """With memory left the answer is 200 and says why it is degraded; with nothing left it is 503."""
    (tmp_path / "file").write_text("not a folder")
    for tiers, status in ((("memory", "disk"), 200), (("disk",), 503)):
        cache = Cache(CacheSettings(cache_tiers=tiers, cache_disk_path=str(tmp_path / "file")))
        async with cache, client_of(app(cache)) as client:
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()["status"]) == (status, "degraded")
            assert answer.json()["tiers"][f"l{len(tiers)}"]["up"] is False
            assert len(answer.json()["tiers"][f"l{len(tiers)}"]["reason"]) > 10


async def test_a_closed_cache_is_not_healthy(site: Site) -> None:
    """After close the probe answers 503, and so does what would need the cache."""
    await site.cache.close()
    assert (await site.get("/healthz")).status_code == 503
    assert (await site.get("/monitoring/cache/keys/k")).status_code == 503
    assert (await site.post("/cache/clear", {"all": True})).status_code == 503
    assert (await site.get("/monitoring/cache")).status_code == 200


async def test_a_probe_before_the_first_use_opens_the_cache(tmp_path: Path) -> None:
    """A mounted cache that nobody has used yet is well."""
    cache = Cache(CacheSettings(cache_tiers=("disk",), cache_disk_path=str(tmp_path / "disk")))
    async with client_of(app(cache)) as client:
        assert (await client.get("/healthz")).json()["status"] == "ok"
    await cache.close()


async def test_the_page_and_its_files_are_served_with_a_strict_policy(site: Site) -> None:
    """The dashboard comes with its script and style, and lets nothing else in."""
    page = await site.get("/monitoring/cache/dashboard")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in page.text
    assert "https://" not in page.text
    script = await site.get("/monitoring/cache/dashboard/page.js")
    assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "../routes.py",
        "..%2Froutes.py",
        "%2Fetc%2Fpasswd",
        "page.js%00.html",
        "nothing.js",
        "",
        "%2e%2e/x.js",
        "é" * 300 + ".js",
    ],
)
async def test_nothing_but_the_pages_own_files_is_served(site: Site, path: str) -> None:
    """No path leads out of the dashboard's folder."""
    answer = await site.get(f"/monitoring/cache/dashboard/{path}")
    assert answer.status_code in (404, 307)
    assert "import" not in answer.text


async def test_a_slash_too_many_leads_to_the_page(site: Site) -> None:
    """Whoever types /dashboard/ is sent to /dashboard."""
    answer = await site.get("/monitoring/cache/dashboard/")
    assert (answer.status_code, answer.headers["location"]) == (307, "../dashboard")


def test_what_others_made_is_what_they_made() -> None:
    """The files of others in the page have the hashes that are written beside them, and their licences."""
    folder = FOLDER / "vendor"
    told = (folder / "VENDORED.txt").read_text("utf-8")
    listed = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", told, re.MULTILINE))
    assert len(listed) == 3
    for digest, name in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "Permission is hereby granted" in (folder / "uPlot-LICENSE.txt").read_text("utf-8")
    assert "SIL OPEN FONT LICENSE" in (folder / "Inter-LICENSE.txt").read_text("utf-8")
    assert {path.name for path in folder.iterdir()} == {
        *listed.values(),
        "VENDORED.txt",
        "uPlot-LICENSE.txt",
        "Inter-LICENSE.txt",
    }


async def test_the_page_speaks_both_languages_in_full(site: Site) -> None:
    """Every word that the page asks for is there in English and in Spanish."""
    words = (await site.get("/monitoring/cache/dashboard/words.js")).text
    english, spanish = (
        set(re.findall(r"(?<![\w{])(\w+): \"", part))
        for part in re.findall(r"const (?:EN|ES) = \{(.*?)\n\};", words, re.DOTALL)
    )
    assert len(english) > 100
    assert english == spanish
    sources = "".join(path.read_text("utf-8") for path in FOLDER.rglob("*") if path.suffix in (".js", ".html"))
    asked = {*re.findall(r"data-t(?:-label)?=\"(\w+)\"", sources), *re.findall(r"[^\w.]t\(\"(\w+)\"", sources)}
    assert asked - english == set()


async def test_no_answer_shows_where_the_servers_are_or_their_passwords(tmp_path: Path) -> None:
    """A password in a URL appears on no page, in no figure and in no metric."""
    url = f"sqlite:///{tmp_path}/cache.db"
    secret = "hunter2-canary"  # noqa: S105  # of a test
    settings = CacheSettings().with_urls("memory://", url).with_overrides(redis_url=f"redis://:{secret}@localhost:1/0")
    cache = Cache(settings.with_overrides(cache_control_token=secret))
    async with cache, client_of(app(cache)) as client:
        await cache.set("k", 1)
        for path in ("", "/levels", "/efficiency", "/keys/k", "/dashboard"):
            assert secret not in (await client.get(f"/monitoring/cache{path}")).text
        for path in ("/metrics", "/healthz", "/openapi.json"):
            assert secret not in (await client.get(path)).text
        assert secret not in (await client.post("/cache/clear", json={"all": True})).text
