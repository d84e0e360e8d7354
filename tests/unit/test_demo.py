"""The demo: its traffic, its backend, its page and its whole story, at a speed that a test can wait for."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from genesis_cache import Cache
from genesis_cache.cli.app import run as command
from genesis_cache.demo import figures, places
from genesis_cache.demo.backend import Backend
from genesis_cache.demo.load import Progress, play
from genesis_cache.demo.page import Page
from genesis_cache.demo.places import Places, in_folder, on_servers
from genesis_cache.demo.run import Demo
from genesis_cache.demo.screen import screen
from genesis_cache.demo.service import service
from genesis_cache.demo.telling import Teller
from genesis_cache.demo.traffic import is_question, recorded
from genesis_cache.demo.words import words
from genesis_cache.model.errors import SettingsError
from genesis_cache.testing.servers import RedisServer, ServerMissing

FAST = 1000.0  # the backend's waits are divided by this


def test_the_recorded_traffic_is_what_its_attribution_says() -> None:
    """59,988 look-ups of 976 objects ship with the package, with their licence."""
    traffic = recorded()
    assert (len(traffic), len(set(traffic))) == (59_988, 976)
    assert 0.02 < sum(map(is_question, traffic)) / len(traffic) < 0.06
    folder = Path(sys.modules["genesis_cache.demo.traffic"].__file__ or "").parent / "data"
    assert "CC BY 4.0" in (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")


async def test_the_backend_counts_what_it_is_asked() -> None:
    """Every visit without the cache costs a query, and a question an answer of the model too."""
    backend = Backend(FAST)
    visit = service(backend, None)
    assert not is_question(0)
    assert is_question(24)
    for _ in range(3):
        await visit(0)
        await visit(24)
    assert (backend.queries, backend.answers) == (6, 3)
    assert backend.usd == pytest.approx(0.015)


async def test_every_visit_is_played_and_timed() -> None:
    """No request of the traffic is lost, and each has a latency above nothing."""
    traffic = recorded()[:300]
    progress, backend = Progress(len(traffic)), Backend(FAST)
    await play(traffic, service(backend, None), 0.05, progress)
    assert progress.done == backend.queries == 300
    assert min(progress.latencies) > 0
    told = figures.figures(traffic, progress, backend, None)
    assert told.requests == 300
    assert told.latency_p50_ms <= told.latency_p99_ms
    assert told.answer_mean_ms > told.row_mean_ms


def test_the_change_is_relative_to_before() -> None:
    """Nine tenths less is -0.9; from nothing there is no change to tell."""
    assert figures.change(100, 10) == pytest.approx(-0.9)
    assert figures.change(0, 10) == 0.0


async def test_the_page_is_the_real_dashboard_of_the_cache_that_is_shown() -> None:
    """Its files, its figures and its control; another cache can be put in its place, as a restart does."""
    async with Cache.from_url("memory://") as one, Cache.from_url("memory://") as other, Page() as page:
        await one.set("k", 1)
        page.show(one)
        base = page.url.removesuffix("/monitoring/cache/dashboard")
        async with httpx2.AsyncClient(base_url=base, timeout=30) as client:
            assert "dashboard/page.js" in (await client.get(page.url)).text
            assert (await client.get("/", follow_redirects=True)).url == page.url
            assert (await client.get("/monitoring/cache/keys/k")).status_code == 200
            headers = {"Authorization": f"Bearer {page.token}"}
            forgotten = await client.post("/cache/invalidate", json={"key": "k"}, headers=headers)
            assert forgotten.json()["matched"] == 1
            await one.set("k", 1)
            page.show(other)
            assert (await client.get("/monitoring/cache/keys/k")).status_code == 404


async def test_who_watches_does_not_keep_the_page_from_closing() -> None:
    """An open stream ends when another cache is shown, and when the demo is over."""
    page = Page()
    async with Cache.from_url("memory://") as cache, httpx2.AsyncClient(timeout=30) as client:
        async with page:
            page.show(cache)
            events = page.url.replace("dashboard", "events")
            async with client.stream("GET", events) as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "retry: 500"
                page.show(cache)
                assert [line async for line in lines]
            stream = await client.send(client.build_request("GET", events), stream=True)
            assert await anext(stream.aiter_lines()) == "retry: 500"
        await stream.aclose()


def test_the_demo_measures_what_the_first_document_promised(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON document: hits, fewer backend calls, a price that is new at once, a restart without the backend."""
    assert command(["demo", "--seconds", "3", "--speed", "50", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    told = json.loads(printed)
    before, after = told["before"], told["after"]
    assert before["requests"] == after["requests"] == told["requests"]
    assert before["hit_ratio"] is None
    assert 0 < told["hit_ratio"] < 1
    assert before["database_queries"] == before["requests"]
    assert after["database_queries"] <= 0.15 * before["database_queries"]
    assert after["model_calls"] <= 0.4 * before["model_calls"]
    assert after["model_usd"] == pytest.approx(0.005 * after["model_calls"])
    assert told["update"]["fresh"]
    assert "12.34" in told["update"]["new_answer"]
    assert "12.34" not in told["update"]["old_answer"]
    assert told["restart"]["asked"] > 100
    assert told["restart"]["backend_calls"] == 0
    assert not Path(".genesis-cache").exists()


def test_the_demo_runs_over_servers_that_it_starts_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over Redis and PostgreSQL: a Redis that hangs is noticed by nobody, and a restart finds all on the servers."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert command(["demo", "--redis", "--database", "--seconds", "8", "--speed", "50", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tiers"] == ["memory", "redis", "database"]
    assert told["after"]["database_queries"] < told["before"]["database_queries"] == told["requests"]
    assert told["update"]["fresh"]
    assert told["freeze"]["requests"] > 500
    assert told["freeze"]["back_ms"] is not None
    assert told["restart"]["backend_calls"] <= told["restart"]["asked"] / 2  # what came late was not stored


def test_the_demo_says_over_which_tiers_it_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person sees the tiers, whose servers they are, and what the frozen one cost."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert command(["demo", "--redis", "--seconds", "8", "--speed", "50"]) == 0
    printed = capsys.readouterr().out
    assert "memory, redis (own server)" in printed
    assert "Redis hangs" in printed
    assert "from the servers, " in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_server_that_is_given_is_left_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo over somebody's Redis freezes nothing, and takes away the entries that it stored there."""
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        assert command(["demo", "--redis", "--seconds", "3", "--speed", "50", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["freeze"] is None
        assert told["restart"]["asked"] > 100
        assert server.ask("KEYS", "genesis:*:v:*") == []


def test_without_a_server_to_be_had_one_sentence_says_how(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither a program nor a wheel is there, the sentence says what to install or to set."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr(places, "RedisServer", _not_installed)
    assert command(["demo", "--redis", "--seconds", "3"]) == 1
    printed = capsys.readouterr()
    assert "REDIS_URL" in printed.err
    assert printed.err.count("\n") == 1


def _not_installed() -> Places:
    raise ServerMissing("there is no redis-server: install Redis, or set REDIS_URL")


def test_the_servers_that_the_environment_names_are_taken() -> None:
    """A given URL starts nothing, and its entries have a name of their own."""
    environ = {"REDIS_URL": "redis://cache.example:6379/0", "DATABASE_URL": "postgresql://cache.example/shop"}
    with on_servers(["redis", "database"], environ) as one, on_servers(["redis"], environ) as other:
        assert list(one.urls.values()) == list(environ.values())
        assert one.given == ["redis", "database"]
        assert not one.own
        assert one.name != other.name


def test_the_demo_speaks_spanish(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE_LANGUAGE=es gives the table in Spanish, with its decimal comma, in lines that fit 80 columns."""
    monkeypatch.setenv("CACHE_LANGUAGE", "es")
    assert command(["demo", "--seconds", "3", "--speed", "50"]) == 0
    printed = capsys.readouterr().out
    assert "Tasa de aciertos" in printed
    assert "ms" in printed
    assert max(map(len, printed.splitlines())) <= 80


async def test_a_signal_ends_the_serving(tmp_path: Path) -> None:
    """SIGTERM, as a container gets it, stops the light traffic, and the cache can be closed in peace."""
    spoken = words("en")
    demo = Demo(Teller(spoken, screen(spoken, silent=True)), FAST, 0.1, in_folder(tmp_path))
    serving = asyncio.create_task(demo.serve(None))
    missed = asyncio.Event()
    demo.cache.on("miss", lambda _: missed.set())
    await missed.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 30)
    assert demo.cache.analytics()["global_statistics"]["requests"] >= 1
    await demo.cache.close()


@pytest.mark.parametrize("language", ["en", "es"])
def test_numbers_are_written_as_the_language_does(language: str) -> None:
    """Thousands and decimals are marked the right way round."""
    wanted = {"en": "1,234.5", "es": "1.234,5"}
    assert words(language).number(1234.5, 1) == wanted[language]


def test_a_language_without_words_is_refused() -> None:
    """The error names the languages there are."""
    with pytest.raises(SettingsError, match="en, es"):
        words("fr")
