"""The examination of a whole cache."""

import asyncio
from pathlib import Path

import pytest

from genesis_cache import Cache, CacheSettings
from genesis_cache.insight.diagnosis import memory_finding
from genesis_cache.model.clock import SystemClock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.testing.servers import RedisServer
from genesis_cache.tiers.embedded import StoreTier
from genesis_cache.tiers.sqlite import SqliteStore

GB = 2**30


class Hanging(StoreTier):
    """A real tier, whose examination never ends."""

    async def diagnose(self) -> list[Finding]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return []


async def test_every_tier_is_examined_in_order(tmp_path: Path) -> None:
    """Memory comes first, then the others as they are asked."""
    async with Cache.from_url("memory://", f"disk://{tmp_path / 'd'}", f"sqlite:///{tmp_path / 'c.db'}") as cache:
        findings = await cache.diagnose()
    kinds = list(dict.fromkeys(finding.subject.partition(":")[0] for finding in findings))
    assert kinds == ["memory", "disk", "database"]
    assert all(finding.sentence for finding in findings)


async def test_the_first_use_may_be_the_examination(tmp_path: Path) -> None:
    """A cache that nobody opened opens for it, as for any verb."""
    cache = Cache.from_url(f"disk://{tmp_path / 'd'}")
    assert "disk: size" in [finding.subject for finding in await cache.diagnose()]
    await cache.close()


def test_code_without_a_loop_can_examine_too(tmp_path: Path) -> None:
    """The blocking form gives the same findings."""
    with Cache.from_url("memory://", f"disk://{tmp_path / 'd'}").blocking() as cache:
        assert {"memory: capacity", "disk: size"} <= {finding.subject for finding in cache.diagnose()}


async def test_a_tier_that_hangs_is_a_finding(tmp_path: Path) -> None:
    """The examination ends within a bound, and says who did not answer."""
    store = SqliteStore(tmp_path / "c.db", 2**20, SystemClock())
    tier = Hanging(store, kind="disk", capacity_bytes=2**20, clock=SystemClock())
    async with Cache(CacheSettings(redis_socket_timeout=0.05), tiers=[tier]) as cache:
        (found,) = await cache.diagnose()
    assert found.severity is Severity.FAULT
    assert "did not answer within 0.1 s" in found.sentence


async def test_hearing_is_examined_where_there_are_other_hosts() -> None:
    """While the shared tier is there its changes are heard; when it is gone for too long, that is a fault."""
    with RedisServer() as server:
        settings = {"max_staleness": 0.3, "redis_socket_timeout": 0.5}
        async with Cache.from_url("memory://", server.url, **settings) as cache:
            well = (await cache.diagnose())[-1]
            server.kill()
            ill = well
            for _ in range(600):
                if (ill := (await cache.diagnose())[-1]).severity is not Severity.OK:
                    break
                await asyncio.sleep(0.05)
    assert (well.subject, well.severity) == ("coherence: hearing", Severity.OK)
    assert ill.severity is Severity.FAULT
    assert "CACHE_ON_PARTITION" in ill.fix


@pytest.mark.parametrize(
    ("limit", "machine", "severity"),
    [
        (GB, 16 * GB, Severity.OK),
        (GB, None, Severity.OK),
        (10 * GB, 16 * GB, Severity.ADVICE),
        (15 * GB, 16 * GB, Severity.FAULT),
        (None, 16 * GB, Severity.ADVICE),
    ],
)
def test_memory_is_judged_against_the_machine(limit: int | None, machine: int | None, severity: Severity) -> None:
    """A tier that takes half of what there is is worth a word, one that takes all of it is a fault."""
    found = memory_finding(limit, machine)
    assert found.severity is severity
    assert (found.fix == "") is (severity is Severity.OK)
