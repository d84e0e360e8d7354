"""Metrics: what Prometheus and OpenTelemetry are told, by their own clients."""

import asyncio
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.shape.source import ROOT
from tests.web.conftest import Open, Site, client_of

from genesis_cache import Cache, CacheSettings
from genesis_cache.export.otel import instrument
from genesis_cache.export.prometheus import CacheCollector
from genesis_cache.export.workers import Workers
from genesis_cache.web import app

CONTRACT = {
    "cache_hit_total": {"layer"},
    "cache_miss_total": {"layer"},
    "cache_response_time_seconds_bucket": {"layer", "le"},
    "cache_size_bytes": {"layer"},
    "cache_capacity_bytes": {"layer"},
    "cache_entries": {"layer"},
    "cache_evictions_total": {"layer", "reason"},
    "cache_loads_total": {"result"},
    "cache_load_seconds_bucket": {"le"},
    "cache_coalesced_total": set(),
    "cache_stale_served_total": set(),
    "cache_invalidations_total": {"scope"},
    "cache_invalidation_lag_seconds": set(),
    "cache_tier_up": {"layer"},
    "cache_circuit_state": {"layer"},
    # beyond the contract: the live proof of coherence
    "cache_propagation_seconds_bucket": {"le"},
    "cache_canaries_total": {"result"},
    "cache_behind_total": {"after"},
    "cache_inconsistent_total": {"after"},
}


async def scraped(site: Site) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a scrape by name and labels."""
    text = (await site.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def of(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, frozenset(labels.items())]


async def busy(cache: Cache) -> None:
    """Some of everything that is counted."""
    await cache.set("k", "v", tags=["t"])
    for _ in range(3):
        await cache.get("k")
    await cache.get("nobody")
    await asyncio.gather(*(cache.get_or_set("slow", lambda: time.sleep(0.02) or 1) for _ in range(4)))

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await cache.get_or_set("bad", fails)
    await cache.delete("k")
    await cache.delete_by_tag("t", "u")
    await cache.delete_by_pattern("a*")
    await cache.namespace("shop").clear()


async def test_every_metric_of_the_contract_is_there_with_its_labels_and_no_other(open_site: Open) -> None:
    """Names, types and labels are those that dashboards and alerts are written for."""
    site = await open_site("memory", "disk")
    await busy(site.cache)
    samples = await scraped(site)
    for name, labels in CONTRACT.items():
        found = {frozenset(key for key, _ in pairs) for one, pairs in samples if one == name}
        assert found == {frozenset(labels)}, name
    allowed = {name.removesuffix("_bucket") for name in CONTRACT} | set(CONTRACT)
    others = {name for name, _ in samples if name.removesuffix("_count").removesuffix("_sum") not in allowed}
    assert not others


async def test_the_figures_are_the_caches_own(open_site: Open) -> None:
    """Counters tell what happened, gauges what is."""
    site = await open_site("memory", "disk")
    await busy(site.cache)
    samples = await scraped(site)
    layers = site.cache.analytics()["layer_statistics"]
    for layer, row in layers.items():
        assert of(samples, "cache_hit_total", layer=layer) == row["hits"]
        assert of(samples, "cache_miss_total", layer=layer) == row["misses"]
        assert of(samples, "cache_entries", layer=layer) == row["entries"]
        assert of(samples, "cache_size_bytes", layer=layer) == row["size_bytes"]
        assert of(samples, "cache_capacity_bytes", layer=layer) == 20 * 2**20
        assert of(samples, "cache_tier_up", layer=layer) == 1
        assert of(samples, "cache_circuit_state", layer=layer) == 0
    assert of(samples, "cache_hit_total", layer="l1") == 3
    assert [of(samples, "cache_loads_total", result=result) for result in ("ok", "error", "timeout")] == [1, 1, 0]
    assert of(samples, "cache_load_seconds_count") == 1
    assert of(samples, "cache_load_seconds_sum") >= 0.02
    assert of(samples, "cache_coalesced_total") == 3
    scopes = ("key", "tag", "pattern", "clear")
    assert [of(samples, "cache_invalidations_total", scope=scope) for scope in scopes] == [1, 2, 1, 1]


async def test_histograms_are_cumulative_and_end_at_everything(site: Site) -> None:
    """Buckets only grow, the last is the count, and a load lies where it belongs."""
    await busy(site.cache)
    samples = await scraped(site)
    for name, labels in (("cache_load_seconds", {}), ("cache_response_time_seconds", {"layer": "l1"})):
        buckets = sorted(
            (float(dict(pairs)["le"]), value)
            for (one, pairs), value in samples.items()
            if one == f"{name}_bucket" and labels.items() <= dict(pairs).items()
        )
        values = [value for _, value in buckets]
        assert values == sorted(values)
        assert buckets[-1] == (float("inf"), of(samples, f"{name}_count", **labels))
        assert of(samples, f"{name}_count", **labels) >= 1
    assert of(samples, "cache_load_seconds_bucket", le="0.016777216") == 0
    assert of(samples, "cache_load_seconds_bucket", le="1.073741824") == 1


async def test_the_format_is_what_the_scraper_asks_for(site: Site) -> None:
    """Prometheus text by default, OpenMetrics where it is accepted; both as their parsers read them."""
    plain = await site.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert len(list(parse_text(plain.text))) == len(CONTRACT)
    opened = await site.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(opened.text)} == {
        name.removesuffix("_total").removesuffix("_bucket") for name in CONTRACT
    }


async def test_the_number_of_series_does_not_depend_on_what_is_stored(site: Site) -> None:
    """Ten thousand keys, users, tags and namespaces later there are as many series as before."""
    await busy(site.cache)
    before = set(await scraped(site))
    for n in range(10_000):
        await site.cache.owned_by(f"user:{n}").set(f"canary:{n}", n, tags=[f"canary-tag:{n}"])
        if n % 100 == 0:
            await site.cache.namespace(f"canary-space-{n}").get(f"canary:{n}")
            await site.cache.delete_by_tag(f"canary-tag:{n}")
    assert set(await scraped(site)) == before
    assert "canary" not in (await site.get("/metrics")).text


async def test_a_large_cache_is_scraped_as_quickly_as_a_small_one(site: Site) -> None:
    """Reading the counters looks at no entry."""
    looked_at = []
    await site.cache.set_many({f"k{n}": n for n in range(20_000)})
    items = site.cache._engine.core.memory.items  # type: ignore[union-attr]  # there is a memory tier

    def watched() -> Any:
        looked_at.append(1)
        return items()

    site.cache._engine.core.memory.items = watched  # type: ignore[union-attr,method-assign]  # to see who walks
    assert (await site.get("/metrics")).status_code == 200
    assert not looked_at


async def test_a_collector_fits_any_registry(site: Site) -> None:
    """An app with metrics of its own registers the cache among them."""
    registry = CollectorRegistry()
    registry.register(CacheCollector(site.cache))
    await busy(site.cache)
    assert b'cache_hit_total{layer="l1"} 3.0' in generate_latest(registry)


def test_without_the_package_the_answer_says_what_to_install() -> None:
    """501 with the fix, and every other route works."""
    program = """
import asyncio, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "prometheus_client":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
import httpx2
from genesis_cache import Cache, CacheSettings
from genesis_cache.web import app
async def main():
    async with Cache(CacheSettings(cache_tiers=("memory",))) as cache:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app(cache)), base_url="http://x") as client:
            answer = await client.get("/metrics")
            print(answer.status_code, answer.json()["detail"])
            print((await client.get("/healthz")).status_code)
asyncio.run(main())
"""
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)  # noqa: S603  # our own
    assert ran.stdout.splitlines() == [
        "501 metrics need the package prometheus-client: pip install 'genesis-cache[metrics]'",
        "200",
    ], ran.stderr


# -- several workers --------------------------------------------------------------------------------------------------

WORKER = """
import asyncio, json, os, sys
from genesis_cache import Cache, CacheSettings
from genesis_cache.export.workers import Workers
async def main():
    cache = Cache(CacheSettings(cache_tiers=("memory",)))
    await cache.set("k", 1)
    workers = Workers(cache, sys.argv[1])
    workers.start()
    for _ in range(int(sys.argv[2])):
        await cache.get("k")
    workers.write()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if sys.argv[3] == "fork":
        child = os.fork()
        if child == 0:
            cache.peek("k")
            cache.peek("k")
            workers.write()
            os._exit(0)
        os.waitpid(child, 0)
        print("forked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    await cache.close()
    workers.stop()
asyncio.run(main())
"""


class Worker:
    """A process that shares the folder."""

    def __init__(self, folder: Path, hits: int, then: str = "end") -> None:
        environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(folder), str(hits), then]
        self._process = subprocess.Popen(  # noqa: S603  # our own
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        self.wait_for("ready")

    def wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self, *, by_kill: bool = False) -> None:
        if by_kill:
            self._process.kill()
        else:
            self.go_on()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Scraped:
    """A worker in this process, and what a scrape of it says of all."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        self._app = app(cache, workers=folder)

    async def hits(self) -> int:
        async with client_of(self._app) as client:
            text = (await client.get("/metrics")).text
        (line,) = [line for line in text.splitlines() if line.startswith("cache_hit_total")]
        return int(float(line.split()[1]))


async def test_workers_are_added_up_and_what_they_counted_outlives_them(site: Site, tmp_path: Path) -> None:
    """Any worker's scrape shows all; the sum never goes down when one ends, however it ends."""
    folder = tmp_path / "workers"
    scraped = Scraped(site.cache, folder)
    await site.cache.set("k", 1)
    await site.cache.get("k")
    assert await scraped.hits() == 1
    first = await asyncio.to_thread(Worker, folder, 10)
    second = await asyncio.to_thread(Worker, folder, 100)
    assert await scraped.hits() == 111
    await asyncio.to_thread(first.end)
    assert await scraped.hits() == 111
    await asyncio.to_thread(second.end, by_kill=True)
    assert [await scraped.hits() for _ in range(3)] == [111] * 3
    third = await asyncio.to_thread(Worker, folder, 1000)
    assert await scraped.hits() == 1111
    await asyncio.to_thread(third.end)
    assert len(list(folder.glob("*-*.json"))) <= 2


async def test_what_an_earlier_run_left_is_wiped_at_start(site: Site, tmp_path: Path) -> None:
    """A service that starts anew counts from 0, and files of others in the folder do not disturb it."""
    folder = tmp_path / "workers"
    scraped = Scraped(site.cache, folder)
    earlier = await asyncio.to_thread(Worker, folder, 10)
    await asyncio.to_thread(earlier.end)
    assert list(folder.glob("*-*.json"))
    (folder / "notes.txt").write_text("mine")
    (folder / "1-0-0.json").write_text("{damaged")
    assert await scraped.hits() == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_a_worker_that_hangs_holds_up_nobody(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is never given back makes the scrape a 503 with a sentence; everything else goes on meanwhile."""
    monkeypatch.setattr("genesis_cache.export.workers.LOCK_PATIENCE_S", 0.3)
    folder = tmp_path / "workers"
    async with client_of(app(site.cache, workers=folder)) as client:
        assert (await client.get("/metrics")).status_code == 200
        with (folder / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            scrape = asyncio.create_task(client.get("/metrics"))
            await asyncio.sleep(0.05)
            assert (await client.get("/healthz")).status_code == 200
            assert not scrape.done()
            answer = await scrape
        assert (answer.status_code, "it may hang" in answer.json()["detail"]) == (503, True)
        assert (await client.get("/metrics")).status_code == 200


async def test_a_damaged_file_is_left_out(site: Site, tmp_path: Path) -> None:
    """A file cut off by a full disk costs its figures, not the scrape."""
    folder = tmp_path / "workers"
    scraped = Scraped(site.cache, folder)
    assert await scraped.hits() == 0
    (folder / f"{os.getppid()}-0-0.json").write_text('{"layers": ')
    assert await scraped.hits() == 0


async def test_a_forked_child_counts_from_nothing(site: Site, tmp_path: Path) -> None:
    """What the parent had counted when it forked is counted once."""
    folder = tmp_path / "workers"
    scraped = Scraped(site.cache, folder)
    assert await scraped.hits() == 0
    parent = await asyncio.to_thread(Worker, folder, 10, "fork")
    parent.go_on()
    await asyncio.to_thread(parent.wait_for, "forked")
    assert await scraped.hits() == 12
    await asyncio.to_thread(parent.end)
    assert await scraped.hits() == 12


async def test_memories_add_up_and_a_shared_tier_is_one(open_site: Open, tmp_path: Path) -> None:
    """Two workers have two memories but one disk."""
    sites = [await open_site("memory", "disk"), await open_site("memory", "disk")]
    await sites[0].cache.set("k", "v")
    await sites[1].cache.get("k")
    one, two = (site.cache.measures() for site in sites)
    size = one.layers["l1"].size_bytes
    one.add(two)
    assert one.layers["l1"].entries == 2
    assert one.layers["l1"].size_bytes == pytest.approx(2 * size, rel=0.2)
    assert one.layers["l1"].capacity_bytes == 40 * 2**20
    assert one.layers["l2"].entries == 1
    assert one.layers["l2"].capacity_bytes == 20 * 2**20


async def test_the_app_keeps_its_file_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE_METRICS_PATH is enough; the file is written with the lifespan, and nothing is left running after it."""
    folder = tmp_path / "workers"
    monkeypatch.setenv("CACHE_METRICS_PATH", str(folder))
    whole = app(Cache(CacheSettings(cache_tiers=("memory",))))
    async with whole.router.lifespan_context(whole):
        (path,) = folder.glob("*-*.json")
        assert json.loads(path.read_text())["layers"]["l1"]["hits"] == 0
        assert path.name.startswith(f"{os.getpid()}-")


async def test_many_processes_may_write_and_read_at_once(site: Site, tmp_path: Path) -> None:
    """Under a storm of scrapes the sum is right at its end."""
    folder = tmp_path / "workers"
    caches = [Cache(CacheSettings(cache_tiers=("memory",))) for _ in range(4)]
    all_workers = [Workers(cache, folder) for cache in caches]
    for number, workers in enumerate(all_workers):
        workers._name = f"{os.getpid()}-x-{number}.json"  # as if they were processes

    def storm(workers: Workers, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(30):
            draw.choice((workers.write, workers.total))()

    folder.mkdir()
    await asyncio.gather(*(asyncio.to_thread(storm, workers, n) for n, workers in enumerate(all_workers)))
    assert all_workers[0].total().layers["l1"].hits == 0
    for cache in caches:
        await cache.close()


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


def observed(reader: InMemoryMetricReader) -> dict[str, dict[tuple[tuple[str, Any], ...], float]]:
    """Every data point by instrument and attributes."""
    data = reader.get_metrics_data()
    found: dict[str, dict[tuple[tuple[str, Any], ...], float]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = tuple(sorted((point.attributes or {}).items()))
                    found.setdefault(metric.name, {})[attributes] = point.value  # type: ignore[union-attr]  # no histograms
    return found


async def test_opentelemetry_reads_the_same_counters(open_site: Open) -> None:
    """Observable instruments show what analytics shows, with attributes from closed sets."""
    site = await open_site("memory", "disk")
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    end = instrument(site.cache, meter_provider=provider)
    await busy(site.cache)
    found = observed(reader)
    near = (("layer", "l1"), ("tier", "memory"))
    assert found["cache.hits"][near] == 3
    assert found["cache.loads"][(("result", "ok"),)] == 1
    assert found["cache.invalidations"][(("scope", "tag"),)] == 2
    assert found["cache.capacity"][near] == 20 * 2**20
    assert found["cache.tier.up"][near] == 1
    assert found["cache.coalesced"][()] == 3
    keys = {key for points in found.values() for attributes in points for key, _ in attributes}
    assert keys <= {"layer", "tier", "result", "scope", "reason", "after"}
    end()
    await asyncio.sleep(0.11)
    assert observed(reader) == {}
    provider.shutdown()


async def test_a_load_has_a_span_inside_its_callers_and_a_hit_has_none(site: Site) -> None:
    """A trace shows what took time; hits in memory leave no mark, and the end of instrumenting is the end of spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end = instrument(site.cache, tracer_provider=provider)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("request") as request:
        await site.cache.namespace("shop").get_or_set("secret-key", lambda: time.sleep(0.02) or 1)
    for _ in range(10):
        await site.cache.namespace("shop").get("secret-key")
    load, _ = exporter.get_finished_spans()
    assert load.name == "cache.load"
    assert load.parent is not None
    assert load.parent.span_id == request.get_span_context().span_id
    assert dict(load.attributes or {}) == {"cache.namespace": "shop"}
    assert load.start_time is not None
    assert load.end_time is not None
    assert 0.02e9 <= load.end_time - load.start_time < 10e9
    end()
    await site.cache.get_or_set("other", lambda: 1)
    assert len(exporter.get_finished_spans()) == 2
    provider.shutdown()
