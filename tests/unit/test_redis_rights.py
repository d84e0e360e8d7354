"""The rights that a Redis user needs: those that the guide names are enough, and nothing is asked for beyond them."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

from genesis_cache import Cache
from genesis_cache.model.finding import Severity
from genesis_cache.testing.servers import RedisServer

PATIENCE_S = 10.0
PATIENT = {"far_budget_ms": 1000 * PATIENCE_S}  # no reader goes on without a busy machine's reply
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "redis.md"


def rule() -> list[str]:
    """The words of the guide's ``ACL SETUSER``."""
    found = re.search(r"^ACL SETUSER ((?:.|\\\n)+?)\n```", GUIDE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


async def test_the_rights_in_the_guide_are_enough(start_redis: Callable[..., RedisServer], cache_name: str) -> None:
    """A user with just these rights reads, writes, invalidates, sweeps and asks the doctor; nothing is denied."""
    server = start_redis()
    name, *rights = rule()
    server.ask("ACL", "SETUSER", name, *rights)
    password = next(word[1:] for word in rights if word.startswith(">"))
    url = f"redis://{name}:{password}@127.0.0.1:{server.port}/0"
    async with (
        Cache.from_url("memory://", url, name=cache_name, **PATIENT) as cache,
        Cache.from_url(url, name=cache_name, **PATIENT) as other,
    ):
        assert await cache.set_many({f"k{n}": n for n in range(100)}, ttl="1h", tags=["all"])
        assert await other.get("k1") == 1
        assert len(await other.get_many([f"k{n}" for n in range(100)])) == 100
        assert await other.get_or_set("loaded", lambda: "by one") == "by one"
        assert await cache.touch("k2", "2h")
        assert await cache.expire("k3")
        assert await cache.delete("k4")
        assert await cache.delete_by_pattern("k5*")
        assert await cache.delete_by_tag("all")
        deadline = time.monotonic() + PATIENCE_S
        while await other.get("k1") is not None:  # the notice is on its way
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert await cache.clear()
        assert (await cache.explain("k1")).verdict != "fresh"
        for lane in cache._engine.core.lanes:
            await lane.tier.sweep(5.0)
        about_rights = [one for one in await cache.diagnose() if one.subject.endswith("permissions")]
        assert [one.severity for one in about_rights] == [Severity.OK] * len(about_rights) != []
        assert all(row["up"] for row in cache.analytics()["layer_statistics"].values())
    denied = server.ask("ACL", "LOG")
    assert denied == [], repr(denied)
