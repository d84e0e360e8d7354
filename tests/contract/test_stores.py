"""Every embedded store keeps the contract of stores."""

from pathlib import Path

from genesis_cache.model.clock import Clock
from genesis_cache.testing.stores import StoreContract
from genesis_cache.tiers.base import Store
from genesis_cache.tiers.sqlite import SqliteStore


class TestSqliteOnDisk(StoreContract):
    factory = "genesis_cache.tiers.sqlite:SqliteStore"


class TestSqliteAsDatabase(StoreContract):
    factory = "genesis_cache.tiers.sqlite:SqliteStore"
    bounds_files = False

    def make_store(self, path: Path, max_bytes: int, clock: Clock) -> Store:
        return SqliteStore(path, max_bytes, clock, evict="size")
