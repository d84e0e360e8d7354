"""The feed and `genesis-cache serve`, over real sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.shape.source import ROOT
from tests.web.conftest import Site
from tests.web.serving import Served

from genesis_cache.web.feed import MOST_WATCHERS, Feed

START_S = 60


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server with a token."""
    server = Served(tmp_path, CACHE_CONTROL_TOKEN="t0k3n")  # noqa: S106  # of a test
    yield server
    server.end(signal.SIGKILL)


async def get_soon(client: httpx2.AsyncClient, url: str) -> httpx2.Response:
    """The answer, as soon as the server listens."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                return await client.get(url)
            except httpx2.TransportError:
                await asyncio.sleep(0.05)


async def test_serve_serves_every_route_and_stops_when_told(served: Served) -> None:
    """It prints its URLs, answers them, controls with the token of the environment, and leaves with 0."""
    urls = served.document["urls"]
    assert served.document["control"] is True
    async with httpx2.AsyncClient() as client:
        assert (await get_soon(client, urls["health"])).json()["status"] == "ok"
        for name, kind in (("dashboard", "text/html"), ("figures", "application/json"), ("metrics", "text/plain")):
            answer = await client.get(urls[name])
            assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)
        clear = urls["health"].replace("/healthz", "/cache/clear")
        headers = {"Authorization": "Bearer t0k3n"}
        assert (await client.post(clear, json={"all": True}, headers=headers)).json()["status"] == "applied"
    code, errors = await asyncio.to_thread(served.end)
    assert (code, errors) == (0, "")


async def test_the_feed_sends_the_figures_every_second_and_ends_with_the_server(served: Served) -> None:
    """An event stream of JSON snapshots; an open stream does not keep the server from stopping."""
    urls = served.document["urls"]
    events = []
    async with httpx2.AsyncClient(timeout=20) as client:
        await get_soon(client, urls["health"])
        async with client.stream("GET", urls["figures"] + "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
                    if len(events) == 2:
                        ended = asyncio.create_task(asyncio.to_thread(served.end, signal.SIGINT))
            code, errors = await ended
    assert len(events) >= 2
    assert {"global_statistics", "layer_statistics", "efficiency", "health"} <= set(events[0])
    assert events[0]["health"]["status"] == "ok"
    assert (code, errors) == (0, "")


async def test_a_watcher_that_leaves_is_no_longer_counted(served: Served) -> None:
    """Streams are bounded, and a closed one gives its place to another."""
    urls = served.document["urls"]
    limits = httpx2.Limits(max_connections=100)
    async with httpx2.AsyncClient(timeout=20, limits=limits) as client:
        await get_soon(client, urls["health"])
        streams = [client.stream("GET", urls["figures"] + "/events") for _ in range(MOST_WATCHERS)]
        opened = [await stream.__aenter__() for stream in streams]
        assert {stream.status_code for stream in opened} == {200}
        refused = await client.get(urls["figures"] + "/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        for stream in streams:
            await stream.__aexit__(None, None, None)
        async with asyncio.timeout(20):
            while True:
                async with client.stream("GET", urls["figures"] + "/events") as again:
                    if again.status_code == 200:
                        break
                await asyncio.sleep(0.1)


async def test_one_snapshot_serves_all_who_watch(site: Site) -> None:
    """Ten watchers cost as much as one."""
    feed = Feed(site.cache)
    streams = [feed.events() for _ in range(10)]
    for stream in streams:
        assert await anext(stream) == b"retry: 500\n\n"
    snapshots = {await anext(stream) for stream in streams}
    assert len(snapshots) == 1
    assert feed.watchers == 10
    for stream in streams:
        await stream.aclose()
    assert feed.watchers == 0


async def test_a_stopped_feed_ends_its_streams(site: Site) -> None:
    """Whoever stops a server can end the streams first."""
    feed = Feed(site.cache)
    stream = feed.events()
    await anext(stream)
    await anext(stream)
    feed.stop()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert feed.watchers == 0
    feed.start()
    again = feed.events()
    assert [await anext(again) for _ in range(3)][2].startswith(b"event: analytics")
    await again.aclose()
    feed.stop()


async def test_a_watcher_that_comes_back_is_sent_what_it_missed(site: Site) -> None:
    """The first event has the whole history; one who sends the last id gets only what is new, and of us alone."""
    feed = Feed(site.cache)

    def told(event: bytes) -> tuple[str, str]:
        name, number, _ = event.decode().rpartition("event: ")[2].split("\n", 2)
        return name, number.removeprefix("id: ")

    async def first(last_id: str) -> tuple[str, str]:
        stream = feed.events(last_id)
        await anext(stream)
        event = await anext(stream)
        await stream.aclose()
        return told(event)

    stream = feed.events()
    await anext(stream)
    kind, _ = told(await anext(stream))
    assert kind == "history"
    kind, last_id = told(await anext(stream))
    assert kind == "points"
    assert last_id.endswith("-1")
    await stream.aclose()
    assert (await first(last_id))[0] == "points"
    for other in ("", "x", "abcd-1", last_id.replace("-1", "-"), last_id.replace("-1", "-\u00b2")):
        assert (await first(other))[0] == "history"


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    """Exit code 2, which port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Served(tmp_path, "--port", str(taken.getsockname()[1]))
        code, errors = server.end()
    assert code == 2
    assert "--port" in errors
    assert "Traceback" not in errors


def test_serve_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    """Exit code 1 and the line to type."""
    program = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"fastapi", "uvicorn", "starlette"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from genesis_cache.cli import main
sys.argv = ["genesis-cache", "serve"]
main()
"""
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)  # noqa: S603  # our own
    assert ran.returncode == 1
    assert "pip install 'genesis-cache[web]'" in ran.stderr
    assert "Traceback" not in ran.stderr
