"""The two documents that the project began with: each Python block in them runs against what was built."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from tests.docs.snippets import Snippet, run, snippets

import genesis_cache
from genesis_cache import TTL_DYNAMIC, TTL_PERSONAL, TTL_STATIC, CacheSettings
from genesis_cache.advanced_cache_manager import advanced_cache_manager

SEEDS = Path(__file__).parent / "seeds"
GUIDE = SEEDS / "genesis-multi-layer-cache.md"
STEP_3 = SEEDS / "enterprise-cache-step-3.md"
LISTINGS = {STEP_3: 1, GUIDE: 1}
"""Blocks fenced as Python that list figures; all others are programs."""


class Source:
    """What the documents call ``api``, ``db`` and ``agent``: somebody's own services, counting their calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_latest_data(self) -> dict[str, int]:
        self.calls += 1
        return {"latest": self.calls}

    async def get_agent(self, agent_id: str) -> dict[str, str]:
        self.calls += 1
        return {"id": agent_id, "name": f"agent {agent_id}"}

    async def process(self, prompt: str) -> str:
        self.calls += 1
        return f"answer to {prompt}"


def callers_own() -> dict[str, Any]:
    """The names that the documents take for granted."""
    source = Source()

    async def calculate_metrics() -> dict[str, int]:
        return {"requests": 5}

    shown = {name: getattr(genesis_cache, name) for name in genesis_cache.__all__}
    return shown | {
        "advanced_cache_manager": advanced_cache_manager,
        "api": source,
        "db": source,
        "agent": source,
        "logger": logging.getLogger("genesis_cache"),
        "expensive_computation": lambda param: {"param": param},
        "calculate_metrics": calculate_metrics,
        "article_data": {"title": "Sleep and sport"},
        "user_prefs": {"theme": "dark"},
        "recs": ["a", "b"],
        "settings": {"debug": False},
        "user_id": "user_123",
    }


def adapted(snippet: Snippet) -> Snippet:
    """The block with ``core.`` read as ``genesis_cache.``."""
    return Snippet(snippet.page, snippet.line, re.sub(r"(?m)^(from|import) core\.", r"\1 genesis_cache.", snippet.code))


async def run_all(page: Path) -> dict[str, Any]:
    """Run every program of a document in one namespace and hand the namespace back."""
    namespace = callers_own()
    for snippet in snippets(page):
        block = adapted(snippet)
        if block.is_python:
            await run(block, namespace)
    return namespace


@pytest.mark.parametrize("page", LISTINGS, ids=lambda page: page.name)
def test_all_blocks_but_the_listings_are_programs(page: Path) -> None:
    """No block is left out unless it lists figures."""
    blocks = list(snippets(page))
    assert len([block for block in blocks if not block.is_python]) == LISTINGS[page]
    assert len(blocks) == {STEP_3: 1, GUIDE: 20}[page]


@pytest.mark.usefixtures("_fresh")
async def test_every_block_of_the_guide_runs(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The guide's programs run in order, unchanged but for the package's name, and do what they say."""
    caplog.set_level(logging.DEBUG, "genesis_cache")
    said = await run_all(GUIDE)
    printed = capsys.readouterr().out
    assert said["value"] == "value"
    assert said["data"] is not None
    assert said["metrics"] == {"requests": 5}
    assert said["stats"]["layer_statistics"]
    assert re.search(r"Hit ratio: [\d.]+%\nResponse time: [\d.e-]+ms\n", printed)
    assert re.search(r"l1: [\d.]+% hit ratio", printed)
    assert said["result"].to_dict()["applied"] in (True, False)
    assert "Cache hit L1: user:123:profile" in caplog.messages


@pytest.mark.usefixtures("_fresh")
async def test_what_the_guide_stores_behaves_as_it_says() -> None:
    """After the guide's programs: decorated functions ran once, tags and users are forgotten, settings stay."""
    said = await run_all(GUIDE)
    assert await said["get_expensive_data"]("x") == {"param": "x"}
    before = said["agent"].calls
    answers = [await said["get_agent_response"]("a", "hello") for _ in range(3)]
    assert answers == ["answer to hello"] * 3
    assert said["agent"].calls == before + 1
    assert await said["tagged_cache"].get("article:1") is None
    assert await said["personalized_cache"].get("preferences", user_id="user_123") is None
    assert await said["personalized_cache"].get("recommendations", segment="premium_users") == ["a", "b"]
    assert await said["get_cached_value"]("config:app_settings") == {"debug": False}
    assert (said["TTL_STATIC"], said["TTL_DYNAMIC"], said["TTL_PERSONAL"]) == (TTL_STATIC, TTL_DYNAMIC, TTL_PERSONAL)
    explained = await advanced_cache_manager.explain("config:app_settings")
    assert explained.tiers[0].ttl_left is None


@pytest.mark.usefixtures("_fresh")
async def test_the_guides_router_serves_from_the_cache() -> None:
    """The FastAPI example loads an agent once and says so in its second answer."""
    said = await run_all(GUIDE)
    app = FastAPI()
    app.include_router(said["router"])

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        first, second = [(await client.get("/api/v1/agents/7")).json() for _ in range(2)]
    assert first == {"data": {"id": "7", "name": "agent 7"}, "cached": False}
    assert second == {"data": {"id": "7", "name": "agent 7"}, "cached": True}


def test_the_first_listing_is_what_the_settings_say() -> None:
    """Entries, disk sizes and ttls by content type are the figures that the document lists."""
    (listing,) = [block.code for block in snippets(STEP_3) if not block.is_python]
    presets = re.findall(r"^([A-Z]+): +(\d+) entradas memoria \+ (\d+)MB disco", listing, re.MULTILINE)
    assert len(presets) == 3
    for name, entries, megabytes in presets:
        settings = CacheSettings.from_env({"CACHE_ENVIRONMENT": name})
        assert settings.l1_cache_max_entries == int(entries)
        assert settings.capacity_mb(2, "disk") == float(megabytes)
    ttls = re.findall(r"^([a-z_]+): (\d+)s", listing, re.MULTILINE)
    assert {name: float(ttl) for name, ttl in ttls} == dict(CacheSettings().content_types)


def test_the_second_listing_is_metrics_text() -> None:
    """The metrics that the guide lists are lines of the Prometheus text format, by layer."""
    (listing,) = [block.code for block in snippets(GUIDE) if not block.is_python]
    lines = [line for line in listing.splitlines() if line and not line.startswith("#")]
    names = [re.fullmatch(r'(cache_\w+)\{layer="l[1-4]"\} [\d.]+', line) for line in lines]
    assert [match[1] for match in names if match] == [
        "cache_hit_total",
        "cache_miss_total",
        "cache_response_time_seconds",
        "cache_size_bytes",
    ]
