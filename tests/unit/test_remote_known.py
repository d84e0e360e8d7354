"""Whom a log was joined on: servers that took another's place are not used before their log is joined."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.server_process import ServerProcess
from genesis_cache.testing.store_words import MB, address, put
from genesis_cache.tiers.postgres.store import postgres_store
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import Outage, RemoteStore
from genesis_cache.tiers.remote_known import Known, Replaced

PATIENCE_S = 30.0


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Any:
    """A private server that a test may hurt."""
    return request.getfixturevalue(f"own_{request.param}")


def factory(server: Any) -> Callable[[], RemoteStore]:
    """What makes stores on a server."""
    if server.url.startswith("redis"):
        return redis_store(CacheSettings(redis_url=server.url, redis_connection_timeout=5), MB, SystemClock())
    return postgres_store(CacheSettings(database_url=server.url, redis_connection_timeout=5), MB, SystemClock())


async def refusal(act: Callable[[], Any]) -> str:
    """The sentence with which a call is refused, once the server is there again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await act()
            except Outage as outage:
                if "joined first" in str(outage):
                    return str(outage)
            else:
                pytest.fail("a server was believed that nobody has joined the log on")
            await asyncio.sleep(0.01)


def test_any_server_is_admitted_until_the_log_is_joined() -> None:
    """Before that there is nothing to compare with; afterwards others are refused, and make all others doubt."""
    known = Known()
    turn = known.admit("one")
    known.note(frozenset(["one"]))
    assert known.turn is not turn
    turn = known.turn
    known.note(frozenset(["one"]))
    assert (known.turn, known.admit("one"), known.is_doubted) == (turn, turn, False)
    with pytest.raises(Replaced, match="joined first"):
        known.admit("two")
    assert known.is_doubted
    assert known.turn is not turn
    known.note(frozenset(["two"]))
    assert not known.is_doubted


async def test_a_restarted_server_is_used_when_its_log_is_joined(server: ServerProcess) -> None:
    """Reads and changes by any store of the process are refused until then, and the next join sees to it."""
    make = factory(server)
    reader, follower = make(), make()
    try:
        await reader.open()
        known = (await follower.join(None)).position
        await reader.commit([put("a", b"1")], known.epoch)
        assert bytes(await reader.get(address("a")) or b"") == b"1"
        await asyncio.to_thread(lambda: (server.kill(), server.start()))
        assert await refusal(lambda: reader.get(address("a")))
        assert await refusal(lambda: reader.get_many([address("a"), address("b")]))
        assert await refusal(lambda: reader.commit([put("a", b"2")], known.epoch))
        position = (await follower.join(known)).position
        assert await follower.follow(position, 0.0) == []
        assert not (await reader.commit([put("a", b"3")], position.epoch)).receipts[0].refused
        assert bytes(await reader.get(address("a")) or b"") == b"3"
    finally:
        await reader.close()
        await follower.close()


async def test_a_store_that_is_made_after_a_restart_can_join(server: ServerProcess) -> None:
    """Opening is no reading: it works, and the values are there for use once the log is joined."""
    make = factory(server)
    first = make()
    known = (await first.join(None)).position
    await first.close()
    await asyncio.to_thread(lambda: (server.kill(), server.start()))
    second = make()
    try:
        await second.open()
        assert await refusal(lambda: second.get(address("a")))
        assert (await second.join(known)).position.seq >= known.seq
        assert await second.get(address("a")) is None
    finally:
        await second.close()
