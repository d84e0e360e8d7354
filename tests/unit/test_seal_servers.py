"""Sealing on real servers and files: what a thief of the disk finds, and what a lost key costs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_cache import Cache, CacheSettings
from genesis_cache.testing.servers import PostgresServer, RedisServer

KEY, OTHER = bytes(range(32)).hex(), bytes(32).hex()
VALUE, TAG, ETAG = "canary-value-3f1c", "canary-tag-3f1c", "canary-type-3f1c"


def files_below(folder: Path) -> bytes:
    """All bytes of all files in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def stored_and_lost(settings: CacheSettings, contents: Callable[[], bytes]) -> None:
    """Store a secret, look for it where it lies, and read it with its key, with another and with none."""
    keyed = settings.with_overrides(encryption_keys=f"k:{KEY}", content_types={ETAG: 60})
    async with Cache(keyed) as cache:
        secrets = cache.namespace("canary-space-3f1c")
        assert await secrets.set("1", [VALUE], sensitive=True, tags=[TAG], content_type=ETAG)
        assert await secrets.get_or_set("2", lambda: VALUE, sensitive=True) == VALUE
        assert await secrets.set("3", "no-secret-3f1c")
        assert [tier.present for tier in (await secrets.explain("1")).tiers] == [True, True]
    found = contents()
    assert b"no-secret-3f1c" in found
    for word in (VALUE, TAG, ETAG):
        assert word.encode() not in found
    for keys, expected in ((f"k:{KEY}", ([VALUE], VALUE)), (f"k:{OTHER}", (None, None)), ((), (None, None))):
        async with Cache(keyed.with_overrides(encryption_keys=keys)) as cache:
            secrets = cache.namespace("canary-space-3f1c")
            assert (await secrets.get("1"), await secrets.get("2")) == expected
            assert await secrets.get("3") == "no-secret-3f1c"


@pytest.mark.parametrize("tier", ["disk", "database"])
async def test_files_hold_no_secret(tier: str, tmp_path: Path) -> None:
    """Nobody who reads the files of the disk tier or of SQLite finds a sensitive value; its key brings it back."""
    settings = CacheSettings(
        cache_tiers=("memory", tier), cache_disk_path=tmp_path / "disk", database_url=f"sqlite:///{tmp_path}/cache.db"
    )
    await stored_and_lost(settings, lambda: files_below(tmp_path))


@pytest.mark.slow
async def test_redis_holds_no_secret(own_redis: RedisServer) -> None:
    """Nobody who reads what Redis saved finds a sensitive value; its key brings it back."""
    settings = CacheSettings(cache_tiers="memory,redis", redis_url=own_redis.url)

    def saved() -> bytes:
        own_redis.ask("CONFIG", "SET", "rdbcompression", "no")
        own_redis.ask("SAVE")
        return files_below(own_redis.folder)

    await stored_and_lost(settings, saved)


@pytest.mark.slow
async def test_postgresql_holds_no_secret(own_postgres: PostgresServer) -> None:
    """Nobody who reads the files of PostgreSQL, its log of changes too, finds a sensitive value."""
    settings = CacheSettings(cache_tiers="memory,database", database_url=own_postgres.url)
    await stored_and_lost(settings, lambda: files_below(own_postgres.folder))
