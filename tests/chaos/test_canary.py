"""The canary: a sensitive value is found nowhere outside memory, with encryption keys and without, whatever fails."""

import asyncio
import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.chaos.traffic import opened

from genesis_cache import Cache
from genesis_cache.testing.servers import PostgresServer, RedisServer

CANARY = "canary-5b1f-value"
PLAIN = "plain-5b1f-value"
KEYS = {"with keys": f"k:{bytes(range(32)).hex()}", "without": ()}


class Monitor:
    """Everything that a Redis server is told, as it tells it itself."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._seen: list[bytes] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while more := self._socket.recv(65536):
            self._seen.append(more)

    def end(self) -> bytes:
        """What was seen."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()
        return b"".join(self._seen)


def below(folder: Path) -> bytes:
    """All bytes of all files in a folder."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def use(cache: Cache) -> str:
    """Every way for a sensitive value to come and go; what anybody may be shown of it."""
    shown: list[object] = []
    await cache.set("plain", PLAIN)
    await cache.set("s1", {"secret": CANARY}, sensitive=True, tags=["t"], ttl=60, stale_if_error=60)
    await cache.get_or_set("s2", lambda: CANARY, sensitive=True)
    await cache.get_or_set_many(["s3"], lambda keys: dict.fromkeys(keys, CANARY), sensitive=True)
    await cache.set_many({"s4": [CANARY] * 100}, sensitive=True)
    await cache.owned_by("user:1").namespace("n", sensitive=True).set("s5", CANARY)
    assert await cache.get("s2") == CANARY
    await cache.expire("s1")

    def fail() -> None:
        raise OSError("the loader failed")

    assert (await cache.get_or_set("s1", fail, sensitive=True, stale_if_error=60))["secret"] == CANARY
    shown += [(await cache.explain(key)).to_dict() for key in ("s1", "s2", "s3")]
    try:
        await cache.set("s6", {"secret": CANARY, "bad": object()}, sensitive=True)
    except Exception:  # noqa: BLE001  # its words are what counts
        shown.append(traceback.format_exc())
    shown += [cache.analytics(), (await cache.optimize_cache_distribution()).to_dict(), repr(cache)]
    shown += [repr(cache._engine.core.settings), cache._engine.core.settings.to_dict()]
    await cache._engine.background.drain()
    return json.dumps(shown, default=repr)


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
async def test_the_canary_is_found_nowhere(
    keys: object,
    start_redis: Callable[..., RedisServer],
    own_postgres: PostgresServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in Redis' dump, its log of changes or what it is told, nor in files, tables, our logs, figures or errors."""
    redis = await asyncio.to_thread(
        start_redis, "--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no"
    )
    monitor = Monitor(redis)
    with caplog.at_level(logging.DEBUG):
        cache = opened("memory://", f"disk://{tmp_path}/disk", redis.url, own_postgres.url, cache_encryption_keys=keys)
        async with cache:
            shown = await use(cache)
            await asyncio.to_thread(redis.kill)
            await cache.set("s7", CANARY, sensitive=True)
            await asyncio.to_thread(redis.start)
        own = below(tmp_path / "disk")
    await asyncio.to_thread(redis.ask, "SAVE")
    places = {
        "what Redis was told": monitor.end(),
        "the files of Redis": below(redis.folder),
        "the files of the disk tier": own,
        "the files of PostgreSQL": below(own_postgres.folder),
    }
    for place, text in places.items():
        assert PLAIN.encode() in text, f"{place} should hold what is no secret"
        assert CANARY.encode() not in text, place
    assert CANARY not in shown
    assert CANARY not in caplog.text
    assert CANARY not in "".join(str(record.__dict__) for record in caplog.records)


async def test_another_key_reads_nothing(own_redis: RedisServer) -> None:
    """With another key or none a sealed value is a miss; the old key of two still reads."""
    old, new = f"a:{bytes(range(32)).hex()}", f"b:{bytes(range(1, 33)).hex()}"
    async with opened(own_redis.url, cache_encryption_keys=old) as cache:
        assert await cache.set("k", CANARY, sensitive=True)
        assert await cache.get("k") == CANARY
    for keys, expected in ((new, None), ((), None), (f"{new},{old}", CANARY), (old, CANARY)):
        async with opened(own_redis.url, cache_encryption_keys=keys) as cache:
            assert await cache.get("k") == expected
